"""Adam and AdamW against torch.optim; AdamSANIA against a plain restatement."""

from typing import Any

import pytest
import torch

from optimizers.trajectories import (
    CONV,
    MATRICES,
    VECTORS,
    assert_same,
    displacement,
    follow,
    gradients,
    start,
    state_of,
)
from references.diagonal import adam, adam_sania
from steepest import Adam, AdamSANIA, AdamW

SHAPES = [*MATRICES, *CONV, *VECTORS]
HYPERS: dict[str, Any] = {
    "lr": 0.02,
    "betas": (0.8, 0.95),
    "eps": 1e-3,
    "weight_decay": 0.1,
}  # eps large enough to be seen if misplaced


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("ours", "theirs"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
def test_equals_torch(ours, theirs, shape):
    w0, grads = start(shape), gradients(shape)
    expected = follow(theirs, w0, grads, **HYPERS, foreach=False)
    assert_same(follow(ours, w0, grads, **HYPERS, fused=False), expected)


@pytest.mark.parametrize(("ours", "theirs"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
def test_defaults_are_torchs(ours, theirs):
    w0, grads = start((6, 5)), gradients((6, 5), steps=60)
    assert_same(follow(ours, w0, grads), follow(theirs, w0, grads, foreach=False))


@pytest.mark.parametrize(("make", "decoupled"), [(Adam, False), (AdamW, True)])
def test_equals_the_restatement(make, decoupled):
    w0, grads = start((9, 4)), gradients((9, 4))
    assert_same(
        follow(make, w0, grads, **HYPERS, fused=False), adam(w0, grads, **HYPERS, decoupled=decoupled)
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_adam_sania_is_the_published_rule(shape):
    w0, grads = start(shape), gradients(shape)
    assert_same(follow(AdamSANIA, w0, grads, **HYPERS, fused=False), adam_sania(w0, grads, **HYPERS))


@pytest.mark.parametrize(("make", "power"), [(AdamW, 0), (AdamSANIA, -1)])
@pytest.mark.parametrize("c", [1e-3, 7.0, 1e4])
def test_scaling_law(make, power, c):
    w0, grads = start((6, 4)), gradients((6, 4))
    hypers: dict[str, Any] = {"lr": 0.01, "eps": 1e-30, "weight_decay": 0.0}
    plain = displacement(w0 * 0, follow(make, w0 * 0, grads, **hypers))
    scaled = displacement(w0 * 0, follow(make, w0 * 0, [c * g for g in grads], **hypers))
    assert_same([x * c**-power for x in scaled], plain)


def test_eps_never_enters_the_state():
    grads = gradients((4, 3), 5)
    small = state_of(AdamSANIA, start((4, 3)), grads, lr=0.1, eps=1e-8)
    large = state_of(AdamSANIA, start((4, 3)), grads, lr=0.1, eps=1.0)
    assert torch.equal(small["exp_avg_sq"], large["exp_avg_sq"])
    assert torch.equal(small["exp_avg"], large["exp_avg"])


@pytest.mark.parametrize("make", [Adam, AdamW, AdamSANIA])
def test_state_has_torchs_names(make):
    state = state_of(make, start((4, 3)), gradients((4, 3), 3), lr=0.1)
    assert set(state) == {"exp_avg", "exp_avg_sq", "step"}
    assert float(state["step"]) == 3
