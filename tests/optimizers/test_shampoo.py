"""Shampoo and one-sided Shampoo against plain restatements and their exact limits."""

from typing import Any

import pytest
import torch

from optimizers.trajectories import CONV, MATRICES, assert_same, follow, gradients, start
from references.common import msign
from references.shampoo import one_sided_shampoo, shampoo
from steepest import Adagrad, OneSidedShampoo, Shampoo

SHAPES = [*MATRICES, *CONV, (7,), (1, 6), (6, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("beta2", [1.0, 0.9])
@pytest.mark.parametrize("frequency", [1, 5])
def test_is_the_published_rule(shape, beta2, frequency):
    w0, grads = start(shape), gradients(shape)
    hypers: dict[str, Any] = {
        "lr": 0.05,
        "betas": (0.9, beta2),
        "eps": 1e-2,
        "weight_decay": 0.1,
        "precondition_frequency": frequency,
    }
    assert_same(follow(Shampoo, w0, grads, **hypers, fused=False), shampoo(w0, grads, **hypers), 1e-10)


@pytest.mark.parametrize("shape", [(9, 9), (6, 11), (11, 6), (4, 3, 2, 2)])
def test_default_eps(shape):
    w0, grads = start(shape), gradients(shape)
    assert_same(follow(Shampoo, w0, grads, fused=False), shampoo(w0, grads, lr=1e-2), 1e-10)


@pytest.mark.parametrize("shape", [(9, 9), (6, 11), (7,)])
@pytest.mark.parametrize("grafting", ["sgd", "adagrad", "adam", "rmsprop"])
def test_grafting_takes_the_length_of_its_graft(shape, grafting):
    """The direction is Shampoo's, the length the graft's."""
    w0, grads = start(shape), gradients(shape)
    hypers: dict[str, Any] = {"lr": 0.05, "betas": (0.9, 1.0), "eps": 1e-4}
    expected = shampoo(w0, grads, **hypers, grafting=grafting)
    assert_same(follow(Shampoo, w0, grads, **hypers, grafting=grafting, fused=False), expected, 1e-10)


@pytest.mark.parametrize("shape", [(1, 1), (1,)])
def test_one_entry_is_adagrad(shape):
    w0, grads = start(shape), gradients(shape)
    ours = follow(Shampoo, w0, grads, lr=0.1, betas=(0.0, 1.0), eps=1e-30)
    assert_same(ours, follow(Adagrad, w0, grads, lr=0.1, eps=0.0), 1e-10)


def test_diagonal_gradients_are_adagrad_on_the_diagonal():
    w0, grads = start((6,)), gradients((6,))
    ours = follow(
        Shampoo, torch.diag(w0), [torch.diag(g) for g in grads], lr=0.1, betas=(0.0, 1.0), eps=1e-30
    )
    expected = follow(torch.optim.Adagrad, w0, grads, lr=0.1, eps=0.0)
    assert_same(ours, [torch.diag(w) for w in expected], 1e-10)


@pytest.mark.parametrize("shape", [*MATRICES, *CONV])
@pytest.mark.parametrize("side", ["left", "right", "smaller"])
@pytest.mark.parametrize("beta2", [1.0, 0.9])
def test_one_sided_is_the_published_rule(shape, side, beta2):
    w0, grads = start(shape), gradients(shape)
    hypers: dict[str, Any] = {
        "lr": 0.05,
        "betas": (0.9, beta2),
        "eps": 1e-4,
        "weight_decay": 0.1,
        "side": side,
    }
    ours = follow(OneSidedShampoo, w0, grads, **hypers, fused=False)
    assert_same(ours, one_sided_shampoo(w0, grads, **hypers), 1e-10)


@pytest.mark.parametrize("shape", [(9, 9), (6, 11), (11, 6)])
@pytest.mark.parametrize("beta2", [1.0, 0.9])
def test_one_sided_starts_with_the_polar_factor(shape, beta2):
    w0, g = start(shape), gradients(shape, 1)[0]
    (w,) = follow(OneSidedShampoo, w0, [g], lr=0.1, betas=(0.9, beta2), side="smaller")
    torch.testing.assert_close((w0 - w) / 0.1, msign(g), rtol=0, atol=1e-8)
