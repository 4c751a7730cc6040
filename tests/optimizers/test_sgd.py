"""NormalizedSGD and SignSGD against plain restatements."""

from typing import Any

import pytest
import torch

from optimizers.trajectories import CONV, MATRICES, VECTORS, assert_same, follow, gradients, start, state_of
from references.sgd import normalized_sgd, sign_sgd
from steepest import NormalizedSGD, SignSGD

SHAPES = [*MATRICES, *CONV, *VECTORS]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_normalized_sgd_is_the_published_rule(shape, momentum, nesterov):
    if nesterov and momentum == 0:
        nesterov = False  # without momentum there is nothing to look ahead with
    w0, grads = start(shape), gradients(shape)
    hypers: dict[str, Any] = {"lr": 0.05, "momentum": momentum, "nesterov": nesterov, "weight_decay": 0.1}
    assert_same(follow(NormalizedSGD, w0, grads, **hypers, fused=False), normalized_sgd(w0, grads, **hypers))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_sign_sgd_is_the_published_rule(shape, momentum, nesterov):
    w0, grads = start(shape), gradients(shape)
    hypers: dict[str, Any] = {"lr": 0.05, "momentum": momentum, "nesterov": nesterov, "weight_decay": 0.1}
    assert_same(follow(SignSGD, w0, grads, **hypers, fused=False), sign_sgd(w0, grads, **hypers))


def test_every_step_of_normalized_sgd_has_length_lr():
    w0 = torch.zeros(6, 5, dtype=torch.float64)
    previous = w0
    for w in follow(NormalizedSGD, w0, gradients((6, 5)), lr=0.25, momentum=0.9):
        assert float((w - previous).norm()) == pytest.approx(0.25, rel=1e-12)
        previous = w


def test_sum_and_ema_momentum_have_the_same_sign():
    """With the heavy-ball sum in place of the EMA, sign descent takes the same steps."""
    w0, grads = start((5, 4)), gradients((5, 4))
    buffer, w, expected = torch.zeros_like(w0), w0, []
    for g in grads:
        buffer = 0.9 * buffer + g
        w = w - 0.01 * buffer.sign()
        expected.append(w)
    assert_same(follow(SignSGD, w0, grads, lr=0.01, momentum=0.9), expected)


@pytest.mark.parametrize("make", [NormalizedSGD, SignSGD])
def test_zero_gradient_gives_zero_step(make):
    w0 = start((4, 3))
    for w in follow(make, w0, [torch.zeros_like(w0)] * 3, lr=0.1, momentum=0.9):
        assert torch.equal(w, w0)


@pytest.mark.parametrize("make", [NormalizedSGD, SignSGD])
def test_state_is_one_momentum_buffer(make):
    state = state_of(make, start((4, 3)), gradients((4, 3), 3), lr=0.1, momentum=0.9)
    assert state["momentum_buffer"].shape == (4, 3)
    assert [k for k, v in state.items() if isinstance(v, torch.Tensor) and v.numel() > 1] == [
        "momentum_buffer"
    ]
