"""MuAdam and MuAdam-SANIA: plain restatements with an exact polar factor, identities, scaling laws."""

import math
from typing import Any

import pytest
import torch

from optimizers.trajectories import (
    CONV,
    MATRICES,
    VECTORS,
    assert_same,
    descend,
    follow,
    gradients,
    start,
    state_of,
)
from references.muon import muadam, muadam_sania, muon
from steepest import MuAdam, MuAdamSANIA, Muon

PAIRS = [(MuAdam, muadam), (MuAdamSANIA, muadam_sania)]
BOTH = [MuAdam, MuAdamSANIA]


@pytest.mark.parametrize("shape", [*MATRICES, *CONV])
@pytest.mark.parametrize("orthogonalizer", ["svd", "newton_schulz", "polar_express"])
@pytest.mark.parametrize(("ours", "reference"), PAIRS)
def test_is_the_published_rule(ours, reference, orthogonalizer, shape):
    w0, grads = start(shape), gradients(shape)
    hypers: dict[str, Any] = {
        "lr": 0.02,
        "betas": (0.8, 0.95),
        "eps": 1e-3,
        "weight_decay": 0.1,
        "orthogonalizer": orthogonalizer,
    }
    assert_same(follow(ours, w0, grads, **hypers, fused=False), reference(w0, grads, **hypers), 1e-11)


@pytest.mark.parametrize("scale", ["original", "match_rms_adamw", "spectral", "unit_rms", None])
@pytest.mark.parametrize(("ours", "reference"), PAIRS)
def test_shape_scales(ours, reference, scale):
    for shape in [(9, 14), (14, 9), (4, 5, 3, 3)]:
        w0, grads = start(shape), gradients(shape)
        hypers: dict[str, Any] = {"lr": 0.02, "scale": scale, "orthogonalizer": "svd"}
        assert_same(follow(ours, w0, grads, **hypers, fused=False), reference(w0, grads, **hypers), 1e-11)


def signs(shape, steps=24, seed=3):
    """Gradients of entries +1 and -1: the second moment is one at every step, so D = 1."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 2, shape, generator=generator).double() * 2 - 1 for _ in range(steps)]


@pytest.mark.parametrize("shape", [(9, 14), (14, 9), (4, 5, 3, 3)])
@pytest.mark.parametrize("orthogonalizer", ["svd", "newton_schulz"])
@pytest.mark.parametrize("make", BOTH)
def test_with_unit_geometry_it_is_muon(make, orthogonalizer, shape):
    """D = 1 turns MuAdam into Muon without Nesterov: the polar factor ignores the bias correction."""
    w0, grads = start(shape), signs(shape)
    shared: dict[str, Any] = {"lr": 0.02, "weight_decay": 0.1, "orthogonalizer": orthogonalizer}
    ours = follow(make, w0, grads, **shared, betas=(0.9, 0.95), eps=1e-30, fused=False)
    assert_same(ours, follow(Muon, w0, grads, **shared, momentum=0.9, nesterov=False, fused=False), 1e-10)
    assert_same(ours, muon(w0, grads, **shared, momentum=0.9, nesterov=False), 1e-10)


def curved(w: torch.Tensor) -> torch.Tensor:
    """Gradient of a smooth function whose curvature differs from entry to entry."""
    a = torch.linspace(0.5, 2.0, w.numel(), dtype=w.dtype).reshape(w.shape)
    b = torch.linspace(-1.0, 1.0, w.numel(), dtype=w.dtype).reshape(w.shape).sin()
    mixed = w.sum(dim=0, keepdim=True) + w.sum(dim=1, keepdim=True)
    return a * w + 0.1 * mixed.tanh() + b


def regular_start(shape: tuple[int, int]) -> torch.Tensor:
    """A start from which SANIA's first step is well defined.

    Its first oracle sees mhat / D = sign(G), which for small matrices is often of deficient rank; the polar
    factor of such a matrix is a matter of rounding.
    """
    starts = (start(shape, seed=seed) for seed in range(100))
    return next(w for w in starts if float(torch.linalg.svdvals(curved(w).sign()).min()) > 0.5)


@pytest.mark.parametrize("shape", [(8, 8), (6, 11), (11, 6)])
def test_sania_is_invariant_to_entrywise_reparametrisation(shape):
    """W' = W / s gives W'_t = W_t / s for any entrywise s > 0."""
    w0 = regular_start(shape)
    s = torch.exp(1.5 * start(shape, seed=9))
    hypers: dict[str, Any] = {
        "lr": 0.01,
        "weight_decay": 0.1,
        "eps": 1e-30,
        "orthogonalizer": "svd",
        "fused": False,
    }
    plain = descend(MuAdamSANIA, w0, curved, 24, **hypers)
    scaled = descend(MuAdamSANIA, w0 / s, lambda w: s * curved(s * w), 24, **hypers)
    assert_same([s * w for w in scaled], plain, 1e-9)


def test_muadam_is_not_invariant():
    """The square root keeps half of the scale: the measurement above can fail."""
    w0, s = regular_start((8, 8)), torch.exp(1.5 * start((8, 8), seed=9))
    hypers: dict[str, Any] = {"lr": 0.01, "eps": 1e-30, "orthogonalizer": "svd", "fused": False}
    plain = descend(MuAdam, w0, curved, 24, **hypers)
    scaled = descend(MuAdam, w0 / s, lambda w: s * curved(s * w), 24, **hypers)
    assert float((s * scaled[-1] - plain[-1]).abs().max()) > 1e-2


@pytest.mark.parametrize(("make", "power"), [(MuAdam, -0.5), (MuAdamSANIA, -1.0)])
@pytest.mark.parametrize("c", [1e-4, 3.0, 1e5])
@pytest.mark.parametrize("orthogonalizer", ["svd", "newton_schulz"])
def test_scaling_law(make, power, c, orthogonalizer):
    """G -> c G multiplies the direction by c^power."""
    w0, grads = start((9, 14)) * 0, gradients((9, 14))
    hypers: dict[str, Any] = {"lr": 0.01, "eps": 1e-30, "orthogonalizer": orthogonalizer}
    plain = follow(make, w0, grads, **hypers)
    scaled = follow(make, w0, [c * g for g in grads], **hypers)
    assert_same([w * c**-power for w in scaled], plain, 1e-10)


@pytest.mark.parametrize("make", BOTH)
def test_outer_factor_enlarges_a_step(make):
    """With every squared gradient equal to v, D is v^(1/4) (MuAdam) or v^(1/2) (SANIA)."""
    (g,) = signs((6, 9), 1)
    (w,) = follow(make, g * 0, [g * 1e-2], lr=1.0, eps=1e-30, scale=None, orthogonalizer="svd")
    d = {MuAdam: 1e-1, MuAdamSANIA: 1e-2}[make]
    assert float(w.norm()) == pytest.approx(math.sqrt(6) / d, rel=1e-10)


@pytest.mark.parametrize("shape", VECTORS)
@pytest.mark.parametrize("make", BOTH)
def test_what_is_no_matrix_goes_to_adamw(make, shape):
    w0, grads = start(shape), gradients(shape)
    aux: dict[str, Any] = {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2}
    expected = follow(torch.optim.AdamW, w0, grads, **aux, foreach=False)
    assert_same(follow(make, w0, grads, lr=0.5, weight_decay=0.7, aux=aux, fused=False), expected)


@pytest.mark.parametrize("make", BOTH)
def test_state_names(make):
    state = state_of(make, start((4, 6)), gradients((4, 6), 3))
    assert set(state) == {"exp_avg", "exp_avg_sq", "step"}
    assert float(state["step"]) == 3


@pytest.mark.parametrize("method", [MuAdam, MuAdamSANIA])
def test_a_count_on_a_device_does_not_widen_the_arithmetic(method):
    """There the count of steps is a float64 tensor; a step in float64 would be many times slower."""
    rule = method.recipe(method([torch.nn.Parameter(torch.zeros(6, 20))]).param_groups[0])
    grad = torch.randn(2, 6, 20, generator=torch.Generator().manual_seed(0))
    results = []
    for count in (3, torch.full((2, 1, 1), 3.0, dtype=torch.float64)):
        update = rule.update(grad, rule.init(grad), {**rule.hypers(), "step": count})
        assert update is not None
        assert update.direction.dtype == update.momentum.dtype == torch.float32
        results.append(update.direction)
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
