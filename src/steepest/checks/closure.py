"""Clause 2: what ``step`` does with a closure, and with autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steepest.checks.registry import check, expect
from steepest.checks.subject import Subject, need, same_bits, snapshot, state_tensors


def _loss(params: Sequence[Tensor]) -> Tensor:
    total = torch.zeros((), device=params[0].device)
    for index, param in enumerate(params):
        total = total + ((param - 0.1 * (index + 1)) ** 2).sum() + param.sin().sum()
    return total


def _closure(optimizer: Any, params: Sequence[Tensor], seen: list[Any]):
    def closure() -> Tensor:
        seen.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        with torch.enable_grad():
            loss = _loss(params)
        loss.backward()
        return loss

    return closure


@check("closure.enable_grad", 2)
def enable_grad(subject: Subject) -> None:
    """The closure runs with gradients enabled, also when step is called under no_grad."""
    params = subject.params()
    optimizer = subject.build(params)
    seen: list[bool] = []
    with torch.no_grad():
        optimizer.step(_closure(optimizer, params, seen))
        outside = torch.is_grad_enabled()
    expect(seen, "step(closure) to call the closure", "it was never called")
    expect(
        all(seen),
        "gradients enabled inside the closure",
        "torch.is_grad_enabled() was False there",
        "evaluate it under `with torch.enable_grad():`",
    )
    expect(not outside, "step to leave the caller's no_grad as it was", "gradients are enabled after it")


@check("closure.loss_returned", 2)
def loss_returned(subject: Subject) -> None:
    """step(closure) returns the loss at the old weights."""
    params = subject.params()
    optimizer = subject.build(params)
    expected = _loss(params).item()
    returned = optimizer.step(_closure(optimizer, params, []))
    expect(returned is not None, f"step(closure) to return the loss {expected:.4f}", "it returned None")
    returned = float(torch.as_tensor(returned).detach())
    expect(
        abs(returned - expected) <= 1e-5 * abs(expected),
        f"step(closure) to return the loss {expected:.4f} of the weights before the step",
        f"it returned {returned:.4f}",
    )
    if not subject.closure_required:
        subject.step(optimizer, params, 0)
        expect(optimizer.step() is None, "step() without a closure to return None", "it returned something")


@check("closure.same_trajectory", 2)
def same_trajectory(subject: Subject) -> None:
    """Training with a closure gives the same weights, bit for bit, as backward() and step()."""
    need(not subject.closure_required, "step needs a closure")
    params, twins = subject.params(), subject.params()
    with_closure, without = subject.build(params), subject.build(twins)
    for _ in range(5):
        with_closure.step(_closure(with_closure, params, []))
        without.zero_grad()
        _loss(twins).backward()
        without.step()
    expect(
        same_bits(snapshot(params), snapshot(twins)),
        "the same weights after 5 steps with a closure as without",
        "they differ",
        "read the gradients after the closure has run",
    )


@check("closure.no_graph", 2)
def no_graph(subject: Subject) -> None:
    """A step builds no autograd graph: parameters stay leaves, state needs no gradient."""
    params = subject.params()
    optimizer = subject.build(params)
    for _ in range(3):
        optimizer.step(_closure(optimizer, params, []))
    leaves = all(param.is_leaf and param.requires_grad and param.grad_fn is None for param in params)
    hint = "decorate step with @torch.no_grad()"
    expect(leaves, "parameters that are still leaves requiring grad", "some are not", hint)
    tracked = [
        path for values in optimizer.state.values() for path, t in state_tensors(values) if t.requires_grad
    ]
    expect(not tracked, "state tensors that need no gradient", f"state{tracked[:1]} requires grad", hint)
