"""Step lengths against their formulas."""

import pytest
import torch
from torch import Tensor

from steepest import DualScaled, EnergyFloor, Max, RMSMatched, RowNorm, Rule, Spectral, UnitLMO


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("scale", "tall", "wide"),
    [
        (None, 1, 1),
        ("original", 2, 1),  # sqrt(max(1, m/n))
        ("match_rms_adamw", 0.2 * 20**0.5, 0.2 * 20**0.5),
        ("spectral", 2, 0.5),
        ("unit_rms", 20**0.5, 20**0.5),
    ],
)
def test_shape_scales(scale, tall, wide):
    for shape, factor in (((2, 20, 5), tall), ((2, 5, 20), wide)):
        s = random(*shape)
        torch.testing.assert_close(UnitLMO(scale)(s, s, {}), factor * s, rtol=1e-15, atol=0)


@pytest.mark.parametrize(("scale", "rms"), [("match_rms_adamw", 0.2), ("unit_rms", 1.0)])
def test_rms_scales_of_orthogonal_matrices(scale, rms):
    """The two scales are named after the root mean square they give an orthogonal factor."""
    u = Spectral("svd").direction(random(1, 12, 30))
    assert UnitLMO(scale)(u, u, {}).pow(2).mean().sqrt().item() == pytest.approx(rms)


@pytest.mark.parametrize("norm", [Max(), RowNorm(), Spectral("svd")], ids=repr)
def test_dual_scaling_is_the_sharp_operator(norm):
    g = random(2, 4, 6)
    update = Rule(norm=norm, step=DualScaled()).update(g, {}, {})
    assert update is not None
    torch.testing.assert_close(update.direction, norm.dual(g) * norm.direction(g), rtol=1e-12, atol=0)


@pytest.mark.parametrize("size", [0.0, 1e-12, 1e-3, 1.0, 1e3, 1e12])
def test_energy_floor(size):
    """tau = sqrt(|X|^2 + 1): one for small gradients, the gradient's own length for large ones."""
    x, s = size * random(2, 3, 4), random(2, 3, 4, seed=1)
    h = EnergyFloor()(s, x, {"eps": 0.0})
    energies, lengths = (x.flatten(1).norm(dim=1), h.flatten(1).norm(dim=1))
    torch.testing.assert_close(lengths, (energies**2 + 1).sqrt(), rtol=1e-13, atol=0)
    torch.testing.assert_close(h / lengths[:, None, None], s / s.flatten(1).norm(dim=1)[:, None, None])
    damped = EnergyFloor()(s, x, {"eps": 0.5})
    torch.testing.assert_close(
        damped, s * ((energies**2 + 1).sqrt() / (s.flatten(1).norm(dim=1) + 0.5))[:, None, None]
    )


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_lengths_survive_float32_extremes(scale):
    x = (scale * random(1, 3, 4)).float()
    floor = EnergyFloor()(x, x, {"eps": 0.0}).double().norm().item()
    assert floor == pytest.approx(max(1.0, x.double().norm().item()), rel=1e-6)
    assert RMSMatched()(x, x, {}).double().pow(2).mean().sqrt().item() == pytest.approx(0.2, rel=1e-6)


@pytest.mark.parametrize("eps", [0.0, 1e-8])
@pytest.mark.parametrize("step", [UnitLMO("original"), DualScaled(), EnergyFloor(), RMSMatched()], ids=repr)
def test_zero_directions_stay_zero(step, eps):
    zero = torch.zeros(2, 3, 4)
    assert torch.equal(step(zero, zero, {"eps": eps}), zero)


def test_rms_matching_is_per_matrix():
    s = random(2, 3, 4) * torch.tensor([1e-6, 1e6]).reshape(2, 1, 1)
    matched = RMSMatched(0.3)(s, s, {}).pow(2).mean(dim=(1, 2)).sqrt()
    torch.testing.assert_close(matched, torch.full_like(matched, 0.3), rtol=1e-13, atol=0)


def test_bad_choices():
    with pytest.raises(ValueError, match=r"scale must be one of None, 'original'.* got 'orignal'"):
        UnitLMO("orignal")
    for rms in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="rms must be > 0, got"):
            RMSMatched(rms)
