"""Coordinates: diagonal statistics by hand, equilibration by its identities, the (L, R) identity."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steepest import Diagonal, DualScaled, Equilibration, Frobenius, Identity, Rule
from steepest.preconditioners.diagonal import Scaling


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def d_squared(part, grads, **hypers) -> Tensor:
    """D^2 after a sequence of gradients, with the part's own numbers."""
    state = part.init(grads[0])
    coordinates = None
    for t, g in enumerate(grads, 1):
        before = g.clone()
        coordinates = part.prepare(g, state, {**part.hypers(), "step": t, **hypers})
        assert torch.equal(g, before)
    assert isinstance(coordinates, Scaling)
    return coordinates.d_squared


GRADS = [random(2, 3, 4, seed=t) for t in range(4)]
EMA_OF_SQUARES = torch.stack([0.2 * 0.8 ** (3 - t) * g**2 for t, g in enumerate(GRADS)]).sum(0)
CORRECTION = 1 - 0.8**4


@pytest.mark.parametrize("power", [1 / 4, 1 / 3, 1 / 2, 1.0])
@pytest.mark.parametrize("placement", ["outside", "uncorrected", "inside", "floor"])
@pytest.mark.parametrize("beta", [0.8, None])
@pytest.mark.parametrize("corrected", [True, False])
def test_diagonal_by_hand(power, placement, beta, corrected):
    part = Diagonal(power, beta, eps=0.1, eps_placement=placement, bias_correction=corrected)
    v = torch.stack(GRADS).square().sum(0) if beta is None else EMA_OF_SQUARES
    c = CORRECTION if corrected and beta else 1.0
    expected = {
        "outside": (v / c) ** power + 0.1,
        "uncorrected": (v**power + 0.1) / c**power,
        "inside": (v / c + 0.1) ** power,
        "floor": ((v / c) ** power).clamp(min=0.1),
    }[placement]
    torch.testing.assert_close(d_squared(part, GRADS), expected, rtol=1e-13, atol=0)
    assert part.needs_step == (corrected and beta is not None)
    assert list(part.init(GRADS[0])) == ["sum" if beta is None else "exp_avg_sq"]


def test_numbers_come_from_the_hypers():
    part = Diagonal(0.5, 0.999, eps=1.0)
    expected = (EMA_OF_SQUARES / CORRECTION).sqrt() + 0.3
    torch.testing.assert_close(d_squared(part, GRADS, beta2=0.8, eps=0.3), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("placement", ["outside", "uncorrected", "inside"])
def test_without_eps_unseen_entries_do_not_move(placement):
    g = torch.tensor([[[2.0, 0.0]]])
    part = Diagonal(0.5, 0.9, eps=0.0, eps_placement=placement)
    coordinates = part.prepare(g, part.init(g), {"beta2": 0.9, "eps": 0.0, "step": 1})
    torch.testing.assert_close(coordinates.solve(g), torch.tensor([[[1.0, 0.0]]]))
    torch.testing.assert_close(coordinates.back(coordinates.into(g)), torch.tensor([[[1.0, 0.0]]]))


@pytest.mark.parametrize("part", [Identity(), Diagonal(0.5), Diagonal(1.0), Equilibration()], ids=repr)
def test_dual_scaled_frobenius_is_the_whole_preconditioned_gradient(part):
    """|D^-1 G| u(D^-1 G), taken back by D^-1, is G / D^2: the (L, R) identity for diagonal coordinates."""
    g, norm = random(2, 5, 4), Frobenius()
    hypers: dict[str, Any] = {**part.hypers(), "step": 1}
    coordinates = part.prepare(g, part.init(g), hypers)
    t = coordinates.into(g)
    sharp = coordinates.back(norm.dual(t) * norm.direction(t))
    torch.testing.assert_close(sharp, coordinates.solve(g), rtol=1e-12, atol=0)
    if isinstance(coordinates, Scaling):
        torch.testing.assert_close(sharp, g / coordinates.d_squared, rtol=1e-12, atol=0)
    rule = Rule(preconditioner=part, step=DualScaled())
    update = rule.update(g, rule.init(g), hypers)
    assert update is not None
    torch.testing.assert_close(update.direction, sharp, rtol=1e-12, atol=0)


def lengths(g: Tensor) -> tuple[Tensor, Tensor]:
    return (g**2).sum(-1, keepdim=True).sqrt(), (g**2).sum(-2, keepdim=True).sqrt()


@pytest.mark.parametrize("axis", ["both", "rows", "columns"])
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_equilibration_is_row_and_column_lengths(axis, eps):
    g = random(2, 5, 4)
    r, c = lengths(g)
    expected = {"both": r + c, "rows": r, "columns": c}[axis] + eps
    actual = d_squared(Equilibration(eps=eps, axis=axis), [g]).expand_as(g)
    torch.testing.assert_close(actual, expected.expand_as(g), rtol=1e-13, atol=0)


@given(
    m=st.integers(1, 9),
    n=st.integers(1, 9),
    seed=st.integers(0, 999),
    exponent=st.floats(-9, 9),
    mixing=st.sampled_from([None, "direct"]),
)
def test_equilibrated_entries_are_at_most_one_half(m, n, seed, exponent, mixing):
    g = random(1, m, n, seed=seed) * torch.exp(exponent * random(1, m, n, seed=seed + 1))
    part = Equilibration(0, eps=0.0, mixing=mixing)
    ghat = part.prepare(g, {}, {"eps": 0.0}).solve(g)
    assert ghat.isfinite().all()
    assert ghat.abs().max() <= 0.5 * (1 + 1e-14)
    assert torch.equal(ghat.sign(), g.sign())


@pytest.mark.parametrize("shift", [1, 7, 12, -2])
def test_mixing_written_out(shift):
    g = random(2, 5, 9)
    r, c = lengths(g)
    rolled = torch.roll(g, shift, -1)
    lateral = torch.roll(rolled / (r + c), -shift, -1)
    r_rolled, c_rolled = lengths(rolled)
    direct = torch.roll(rolled / (r_rolled + c_rolled), -shift, -1)
    hypers = {"eps": 0.0}

    def ghat(mixing) -> Tensor:
        return Equilibration(mixing=mixing, shift=shift).prepare(g, {}, hypers).solve(g)

    torch.testing.assert_close(ghat("lateral"), lateral, rtol=1e-13, atol=0)
    torch.testing.assert_close(ghat("direct"), direct, rtol=1e-13, atol=0)
    assert torch.equal(ghat("direct"), ghat(None))
    assert not torch.allclose(ghat("lateral"), ghat(None), rtol=1e-3)


@pytest.mark.parametrize(
    ("shape", "threshold", "equilibrated"),
    [
        ((17, 17), 16, True),
        ((16, 99), 16, False),
        ((99, 16), 16, False),
        ((1, 5), 0, True),
        ((5,), 0, False),
        ((), 0, False),
        ((20, 3, 2, 3), 16, True),  # 20 x 18
        ((20, 2, 2, 2), 16, False),  # 20 x 8
    ],
)
def test_thresholds(shape, threshold, equilibrated):
    part = Equilibration(threshold)
    assert part.for_shape(torch.Size(shape)) == (part if equilibrated else Identity())


def test_zero_gradients_are_finite():
    g = torch.zeros(1, 3, 4)
    for axis in ("both", "rows", "columns"):
        for eps in (0.0, 1e-8):
            coordinates = Equilibration(axis=axis).prepare(g, {}, {"eps": eps})
            assert torch.equal(coordinates.solve(g), g)
            assert torch.equal(coordinates.into(g), g)


@pytest.mark.parametrize(
    ("kind", "kwargs", "message"),
    [
        (Diagonal, {"power": 0}, r"power must be in \(0, 1\], got 0"),
        (Diagonal, {"power": 1.5}, r"power must be in \(0, 1\], got 1\.5"),
        (Diagonal, {"eps_placement": "within"}, r"eps_placement must be one of 'outside', .* got 'within'"),
        (Equilibration, {"mixing": "both"}, r"mixing must be None, 'direct' or 'lateral', got 'both'"),
        (Equilibration, {"axis": 0}, r"axis must be 'both', 'rows' or 'columns', got 0"),
        (Equilibration, {"threshold": -1}, r"threshold must be >= 0, got -1"),
    ],
)
def test_bad_choices(kind, kwargs, message):
    with pytest.raises(ValueError, match=message):
        kind(**kwargs)
