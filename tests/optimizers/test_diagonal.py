"""Adagrad against torch.optim, MADGRAD against a plain restatement."""

from typing import Any

import pytest
import torch

from optimizers.trajectories import CONV, MATRICES, VECTORS, assert_same, follow, gradients, start
from references.diagonal import adagrad, madgrad
from steepest import MADGRAD, Adagrad

SHAPES = [*MATRICES, *CONV, *VECTORS]


@pytest.mark.parametrize("shape", SHAPES)
def test_adagrad_is_torchs(shape):
    w0, grads = start(shape), gradients(shape)
    hypers: dict[str, Any] = {"lr": 0.05, "eps": 1e-3, "weight_decay": 0.1}
    ours = follow(Adagrad, w0, grads, **hypers, fused=False)
    assert_same(ours, follow(torch.optim.Adagrad, w0, grads, **hypers, foreach=False))
    assert_same(ours, adagrad(w0, grads, **hypers))


def test_adagrad_defaults_are_torchs():
    w0, grads = start((6, 5)), gradients((6, 5), 60)
    assert_same(follow(Adagrad, w0, grads), follow(torch.optim.Adagrad, w0, grads, foreach=False))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_madgrad_is_the_published_rule(shape, decoupled, momentum):
    w0, grads = start(shape), gradients(shape)
    hypers: dict[str, Any] = {"lr": 0.05, "momentum": momentum, "weight_decay": 0.1, "decoupled": decoupled}
    for eps in (1e-6, 1e-2):
        assert_same(
            follow(MADGRAD, w0, grads, **hypers, eps=eps, fused=False), madgrad(w0, grads, **hypers, eps=eps)
        )


def test_adagrad_accumulator_may_start_above_zero():
    w0, grads = start((6, 5)), gradients((6, 5))
    hypers: dict[str, Any] = {"lr": 0.1, "initial_accumulator_value": 0.5}
    assert_same(follow(Adagrad, w0, grads, **hypers), follow(torch.optim.Adagrad, w0, grads, **hypers))
