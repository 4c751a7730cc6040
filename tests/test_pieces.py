"""Parameters cut into matrices are stepped as those matrices would be by themselves."""

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

import steepest

WIDE = [((12, 8), (4, 4, 4), 0), ((12, 8), (6, 2, 4), 0), ((8, 12), (6, 3, 3), 1), ((2, 12, 8), (5, 7), 0)]
CLASSES = {
    "Muon": lambda ps: steepest.Muon(ps, lr=0.1, weight_decay=0.1),
    "MuAdam": lambda ps: steepest.MuAdam(ps, lr=0.01),
    "ANDI": lambda ps: steepest.ANDI(ps, lr=0.1, threshold=2),
    "Scion": lambda ps: steepest.Scion(ps, lr=0.1, norm="spectral"),
    "ClippedScion": lambda ps: steepest.ClippedScion(ps, lr=0.1, rho=100.0),
    "hyperball": lambda ps: steepest.hyperball(steepest.Muon)(ps, lr=0.1),
    "AdamW": lambda ps: steepest.AdamW(ps, lr=0.1),
}


def gradient(shape, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(("shape", "sizes", "dim"), WIDE)
def test_parts_move_as_parameters_of_their_own(name, shape, sizes, dim):
    batch_dims = len(shape) - 2
    at = batch_dims + dim
    whole = Parameter(gradient(shape, 0))
    parts = [Parameter(x.clone()) for x in whole.detach().split(sizes, at)]
    cut = {"split_sizes": sizes, "split_dim": dim, "batch_dims": batch_dims}
    one = CLASSES[name]([{"params": [whole], **cut}])
    many = CLASSES[name]([{"params": parts, "batch_dims": batch_dims}])
    for seed in range(1, 5):
        whole.grad = gradient(shape, seed)
        for part, grad in zip(parts, whole.grad.split(sizes, at), strict=True):
            part.grad = grad.clone()
        one.step()
        many.step()
    assert torch.allclose(whole, torch.cat([p.detach() for p in parts], at), rtol=0, atol=1e-13)
    for key, value in one.state[whole].items():
        if key == "step":
            assert value == 4
        else:
            together = torch.cat([many.state[p][key] for p in parts], at)
            assert torch.allclose(value, together, rtol=0, atol=1e-13)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "kahan"])
def test_low_precision_state_is_cut_with_the_weight(rounding):
    whole = Parameter(gradient((12, 8), 0, torch.bfloat16))
    options = {"rounding": rounding, "momentum_dtype": torch.bfloat16}
    one = steepest.Muon([{"params": [whole], "split_sizes": (6, 6)}], lr=0.1, **options)
    parts = [Parameter(x.clone()) for x in whole.detach().split(6)]
    many = steepest.Muon(parts, lr=0.1, **options)
    for seed in range(1, 4):
        whole.grad = gradient((12, 8), seed, torch.bfloat16)
        for part, grad in zip(parts, whole.grad.split(6), strict=True):
            part.grad = grad.clone()
        one.step()
        many.step()
    assert torch.equal(whole, torch.cat([p.detach() for p in parts]))


def test_cut_and_whole_parameters_share_an_optimizer():
    cut, plain, apart = (Parameter(gradient((6, 4), 0)) for _ in range(3))
    together = steepest.Muon([{"params": [cut], "split_sizes": [3, 3]}, {"params": [plain]}], lr=0.1)
    alone = steepest.Muon([apart], lr=0.1)
    for p in (cut, plain, apart):
        p.grad = gradient((6, 4), 1)
    together.step()
    alone.step()
    assert torch.equal(plain, apart)
    assert not torch.equal(cut, apart)


def test_a_cut_group_stays_with_the_auxiliary_rule_uncut():
    whole, apart = (Parameter(gradient((6, 4), 0)) for _ in range(2))
    one = steepest.Muon([{"params": [whole], "rule": "aux", "split_sizes": [3, 3]}])
    other = steepest.Muon([{"params": [apart], "rule": "aux"}])
    whole.grad, apart.grad = gradient((6, 4), 1), gradient((6, 4), 1)
    one.step()
    other.step()
    assert torch.equal(whole, apart)


@pytest.mark.parametrize(
    ("make", "group", "error", "message"),
    [
        (
            steepest.Muon,
            {"split_sizes": [4, 4]},
            ValueError,
            r"must sum to the rows of parameter 0 .* 12, got 8",
        ),
        (steepest.Muon, {"split_sizes": 3}, TypeError, "split_sizes must be a list of integers >= 1, got 3"),
        (steepest.Muon, {"split_sizes": [12, 0]}, TypeError, r"a list of integers >= 1, got \[12, 0\]"),
        (
            steepest.Muon,
            {"split_sizes": [6, 6], "split_dim": 2},
            ValueError,
            "split_dim must be one of 0, 1, got 2",
        ),
        (
            steepest.Muon,
            {"split_size": [6, 6]},
            TypeError,
            "unknown key 'split_size'; did you mean 'split_sizes'",
        ),
        (
            steepest.SOAP,
            {"split_sizes": [6, 6]},
            ValueError,
            "whose state has the parameter's shape, such as Muon",
        ),
        (
            steepest.Shampoo,
            {"split_sizes": [6, 6]},
            ValueError,
            "Kronecker keeps factors of the whole matrix",
        ),
    ],
)
def test_cuts_that_are_refused(make, group, error, message):
    with pytest.raises(error, match=message):
        make([{"params": [Parameter(torch.zeros(12, 8))], **group}])


def test_vectors_are_not_cut():
    with pytest.raises(ValueError, match="needs a matrix, got parameter 0 of shape"):
        steepest.ANDI([{"params": [Parameter(torch.zeros(12))], "split_sizes": [6, 6]}])
