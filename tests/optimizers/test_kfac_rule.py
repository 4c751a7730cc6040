"""K-FAC, hooks and all, against backpropagation and the rule written out by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor

from optimizers.trajectories import gradients, start
from references.kfac import kfac_mlp
from steepest import KFAC

IN, HIDDEN, OUT, EXAMPLES = 5, 7, 3, 24


def network(weights: list[Tensor]) -> torch.nn.Sequential:
    """The multilayer perceptron whose layers hold [weight, bias] = the given matrices."""
    model = torch.nn.Sequential(
        torch.nn.Linear(IN, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, OUT)
    ).double()
    with torch.no_grad():
        for layer, w in zip((model[0], model[2]), weights, strict=True):
            assert isinstance(layer, torch.nn.Linear)
            layer.weight.copy_(w[:, :-1])
            layer.bias.copy_(w[:, -1])
    return model


def matrices(model: torch.nn.Sequential) -> list[Tensor]:
    """[weight, bias] of every linear layer."""
    layers = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
    return [torch.cat([layer.weight, layer.bias[:, None]], dim=1).detach() for layer in layers]


CHOICES: list[dict[str, Any]] = [
    {},
    {"momentum": 0.0, "stat_decay": 0.5},
    {"damping": 0.1, "weight_decay": 0.1},
    {"factored_damping": True, "damping": 0.05},
    {"kl_clip": 1e-4},
    {"kl_clip": 1e-4, "factored_damping": True, "precondition_frequency": 5},
    {"precondition_frequency": 5},
]


@pytest.mark.parametrize("choice", CHOICES, ids=repr)
def test_is_the_published_rule(choice):
    weights = [0.5 * start((HIDDEN, IN + 1), seed=1), 0.5 * start((OUT, HIDDEN + 1), seed=2)]
    batches = list(
        zip(gradients((EXAMPLES, IN), 22, seed=3), gradients((EXAMPLES, OUT), 22, seed=4), strict=True)
    )
    hypers: dict[str, Any] = {"lr": 0.01, "damping": 1e-3, "precondition_frequency": 1, **choice}
    expected = kfac_mlp(weights, batches, **hypers)

    model = network(weights)
    optimizer = KFAC(model, **{"kl_clip": None, **hypers}, fused=False)
    for (x, target), step in zip(batches, expected, strict=True):
        optimizer.zero_grad()
        (0.5 * (model(x) - target).pow(2).sum() / EXAMPLES).backward()
        optimizer.step()
        for actual, w in zip(matrices(model), step, strict=True):
            torch.testing.assert_close(actual, w, rtol=1e-9, atol=1e-9)
    assert float((expected[-1][0] - weights[0]).abs().max()) > 1e-3
    optimizer.remove_hooks()


def test_zero_damping_is_two_inverses():
    """One step: A^-1 G B^-1 with the covariances of this batch."""
    weights = [0.5 * start((HIDDEN, IN + 1), seed=1), 0.5 * start((OUT, HIDDEN + 1), seed=2)]
    model = network(weights)
    x, target = start((EXAMPLES, IN), seed=3), start((EXAMPLES, OUT), seed=4)
    optimizer = KFAC(model, lr=1.0, damping=0.0, momentum=0.0, kl_clip=None, fused=False)
    loss = 0.5 * (model(x) - target).pow(2).sum() / EXAMPLES
    loss.backward()
    layer = model[2]
    assert isinstance(layer, torch.nn.Linear)
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    g = torch.cat([layer.weight.grad, layer.bias.grad[:, None]], dim=1)
    with torch.no_grad():
        inputs = torch.cat([torch.tanh(model[0](x)), torch.ones(EXAMPLES, 1, dtype=x.dtype)], dim=1)
        residual = model(x) - target
    optimizer.step()
    a, b = residual.T @ residual / EXAMPLES, inputs.T @ inputs / EXAMPLES
    moved = weights[1] - matrices(model)[1]
    expected = torch.linalg.inv(a) @ g @ torch.linalg.inv(b)
    torch.testing.assert_close(moved, expected, rtol=1e-7, atol=1e-7)
    optimizer.remove_hooks()
