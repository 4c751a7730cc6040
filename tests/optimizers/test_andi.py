"""ANDI against a plain restatement, and the properties its authors claim."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizers.trajectories import CONV, MATRICES, VECTORS, assert_same, follow, gradients, start, state_of
from references.andi import andi, andi_direction, equilibrate
from steepest import ANDI

# Above and below the threshold of 3, and what is no matrix at all.
SHAPES = [*MATRICES, *CONV, (3, 30), (30, 3), (4, 30), *VECTORS, (1, 5), (5, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("momentum_init", ["zero", "gradient"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_is_the_published_rule(shape, nesterov, momentum_init):
    w0, grads = start(shape), gradients(shape)
    hypers: dict[str, Any] = {
        "lr": 0.03,
        "momentum": 0.8,
        "nesterov": nesterov,
        "weight_decay": 0.1,
        "threshold": 3,
        "eps": 1e-3,
        "momentum_init": momentum_init,
    }
    assert_same(follow(ANDI, w0, grads, **hypers, fused=False), andi(w0, grads, **hypers))


@pytest.mark.parametrize("shape", [*MATRICES, (17, 3, 3, 3), (16, 40), (17, 40), (40, 17)])
@pytest.mark.parametrize("threshold", [0, 9, 16])
def test_threshold_separates_small_matrices(shape, threshold):
    w0, grads = start(shape), gradients(shape)
    assert_same(
        follow(ANDI, w0, grads, threshold=threshold, fused=False),
        andi(w0, grads, lr=0.02, threshold=threshold),
    )


@pytest.mark.parametrize("shape", [*MATRICES, *CONV, (4,)])
@pytest.mark.parametrize("shift", [1, 7])
@pytest.mark.parametrize("mixing", ["direct", "lateral"])
def test_mixing_is_the_published_rule(shape, mixing, shift):
    w0, grads = start(shape), gradients(shape)
    hypers: dict[str, Any] = {
        "lr": 0.03,
        "weight_decay": 0.1,
        "threshold": 3,
        "mixing": mixing,
        "shift": shift,
    }
    assert_same(follow(ANDI, w0, grads, **hypers, fused=False), andi(w0, grads, **hypers))


@pytest.mark.parametrize("shape", [(18, 19), (17, 3, 3, 3)])
def test_direct_mixing_is_no_mixing_and_lateral_is_not(shape):
    w0, grads = start(shape), gradients(shape)
    plain = follow(ANDI, w0, grads)
    assert_same(follow(ANDI, w0, grads, mixing="direct"), plain)
    lateral = follow(ANDI, w0, grads, mixing="lateral")
    assert float((lateral[-1] - plain[-1]).abs().max()) > 1e-4


def test_starting_from_the_gradient_doubles_the_first_buffer():
    """M_1 = (1 + mu) H_1 instead of H_1."""
    w0, grads = start((18, 19)), gradients((18, 19), 1)
    zero = state_of(ANDI, w0, grads, momentum=0.9)["momentum_buffer"]
    gradient = state_of(ANDI, w0, grads, momentum=0.9, momentum_init="gradient")["momentum_buffer"]
    torch.testing.assert_close(gradient, 1.9 * zero, rtol=1e-13, atol=0)


def test_state_is_one_buffer():
    state = state_of(ANDI, start((18, 19)), gradients((18, 19), 3))
    assert set(state) == {"momentum_buffer"}
    assert state["momentum_buffer"].shape == (18, 19)


def public_direction(g: torch.Tensor, **kwargs) -> torch.Tensor:
    """H, read off one step of length 1 from the origin without momentum."""
    (w,) = follow(ANDI, torch.zeros_like(g), [g], lr=1.0, momentum=0.0, **kwargs)
    return -w


@st.composite
def gradient_tensors(draw) -> torch.Tensor:
    shape = draw(
        st.sampled_from(
            [(2, 2), (3, 8), (8, 3), (6, 6), (1, 9), (9, 1), (5,), (), (4, 2, 3), (4, 3, 2, 2), (18, 17)]
        )
    )
    size = 10.0 ** draw(st.integers(-4, 8))
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    g = torch.randn(shape, dtype=torch.float64, generator=generator)
    keep = draw(st.sampled_from([1.0, 0.5, 0.1]))
    mask = torch.rand(shape, dtype=torch.float64, generator=generator) < keep
    heavy = draw(st.booleans())
    g = (g**3 if heavy else g) * mask
    if not g.any():
        g = torch.ones_like(g)
    return g / g.norm() * size


@settings(max_examples=80, deadline=None, derandomize=True)
@given(g=gradient_tensors(), threshold=st.sampled_from([0, 1, 4, 16]), lateral=st.booleans())
def test_direction_has_the_energy_floor(g, threshold, lateral):
    """|H|_F = tau, whatever the path and the mixing."""
    h = public_direction(g, threshold=threshold, mixing="lateral" if lateral else None)
    tau = math.sqrt(float(g.norm()) ** 2 + 1)
    assert float(h.norm()) == pytest.approx(tau, rel=1e-3)  # eps = 1e-8 beside norms of 1e-4
    torch.testing.assert_close(
        h, andi_direction(g, threshold, mixing="lateral" if lateral else None), rtol=1e-11, atol=1e-12 * tau
    )


@settings(max_examples=80, deadline=None, derandomize=True)
@given(g=gradient_tensors(), threshold=st.sampled_from([0, 1, 4, 16]))
def test_direction_descends(g, threshold):
    """<G, H> > 0, and H has the sign of G entry by entry."""
    h = public_direction(g, threshold=threshold)
    assert float((g * h).sum()) > 0
    assert bool((h.sign() == g.sign()).all())


@settings(max_examples=80, deadline=None, derandomize=True)
@given(g=gradient_tensors().filter(lambda g: g.ndim >= 2))
def test_entries_before_the_floor_are_at_most_one_half(g):
    """|Ghat| <= 1/2, and the public direction is Ghat brought to length tau."""
    ghat = equilibrate(g.reshape(g.shape[0], -1), eps=1e-8)
    assert float(ghat.abs().max()) <= 0.5 + 1e-15
    h = public_direction(g, threshold=0).reshape(ghat.shape)
    cosine = float((h * ghat).sum() / (h.norm() * ghat.norm()))
    assert cosine == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("shape", [(6, 5), (18, 19), (5,)])
def test_energy_regimes(shape):
    """tau tends to 1 for a vanishing gradient and to |G|_F for a large one."""
    g = start(shape)
    g = g / g.norm()
    hypers: dict[str, Any] = {"threshold": 3, "eps": 1e-14}
    assert float(public_direction(1e-6 * g, **hypers).norm()) == pytest.approx(1.0, rel=1e-7)
    assert float(public_direction(1e6 * g, **hypers).norm()) == pytest.approx(1e6, rel=1e-7)


@pytest.mark.parametrize("shape", [(6, 5), (18, 19), (4, 3, 3, 3), (5,), ()])
@pytest.mark.parametrize("mixing", [None, "direct", "lateral"])
def test_zero_gradient_gives_zero_step(shape, mixing):
    w0 = start(shape)
    for w in follow(ANDI, w0, [torch.zeros_like(w0)] * 2, mixing=mixing, threshold=3):
        assert torch.equal(w, w0)


def test_orthogonal_sign_gradient_is_plain_normalisation():
    """Equal row norms and equal column norms leave nothing to equilibrate."""
    g = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(public_direction(g, threshold=0), g * math.sqrt(5) / 2, rtol=1e-7, atol=0)
