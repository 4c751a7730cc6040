"""Clause 7: what an ordinary step may and may not do to weights and gradients."""

from __future__ import annotations

from typing import Any

import torch

from steepest.checks.registry import check, expect
from steepest.checks.subject import (
    Subject,
    all_finite,
    need,
    noise,
    same_bits,
    set_everywhere,
    snapshot,
    state_snapshot,
)


def _decaying(subject: Subject) -> dict[str, Any]:
    return {"weight_decay": 0.1} if subject.takes("weight_decay", 0.1) else {}


def _zeros(t: int, index: int, param: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(param)


@check("step.descends", 7)
def descends(subject: Subject) -> None:
    """Under a constant gradient every parameter moves against it."""
    params = subject.params()
    start = snapshot(params)
    directions = [
        noise(param.shape, 5, index).to(param.device, param.dtype) for index, param in enumerate(params)
    ]
    overrides = {"weight_decay": 0.0} if subject.takes("weight_decay", 0.0) else {}
    end = subject.run(
        subject.build(params, **overrides),
        params,
        5,
        gradient=lambda t, index, param: directions[index].clone(),
    )
    for before, after, direction in zip(start, end, directions, strict=True):
        along = ((after - before) * direction).sum().item()
        expect(
            along < 0,
            f"a parameter of shape {tuple(before.shape)} to move against a constant gradient",
            f"<movement, gradient> = {along:.2e}",
        )


@check("step.zero_grad_finite", 7)
def zero_gradient_finite(subject: Subject) -> None:
    """A step with zero gradients is finite, as the first step and later."""
    for before in (0, 3):
        params = subject.params()
        optimizer = subject.build(params)
        subject.run(optimizer, params, before)
        end = subject.run(optimizer, params, 3, start=before, gradient=_zeros)
        expect(
            all_finite(end),
            f"finite weights from zero gradients after {before} ordinary steps",
            "some are NaN or infinite",
            "0 / 0: let the direction of a zero gradient be zero",
        )
        end = subject.run(optimizer, params, 3, start=before + 3)
        expect(all_finite(end), "finite weights from ordinary steps after zero gradients", "some are not")


@check("step.lr_zero_does_not_move", 7)
def lr_zero(subject: Subject) -> None:
    """With lr = 0 no weight moves, with weight decay and momentum, and training can go on."""
    for before in (0, 3):
        params = subject.params()
        optimizer = subject.build(params, **_decaying(subject))
        rates = [group["lr"] for group in optimizer.param_groups]
        subject.run(optimizer, params, before)
        set_everywhere(optimizer, "lr", 0.0)
        settle = 1 if before else 0  # rules that compute the next step's size ahead may lag by one step
        start = subject.run(optimizer, params, settle, start=before)
        end = subject.run(optimizer, params, 3, start=before + settle)
        expect(
            all(torch.equal(a, b) for a, b in zip(start, end, strict=True)),
            f"no weight to move while lr = 0 (set after {before} steps)",
            "some did",
            "multiply everything that is added to the weights by lr, weight decay too",
        )
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        expect(
            all_finite(subject.run(optimizer, params, 3, start=9)),
            "finite weights after lr = 0",
            "some are not",
        )


@check("step.none_grad_untouched", 7)
def none_gradient(subject: Subject) -> None:
    """A parameter whose grad is None is left alone: no decay, no momentum, no change of state."""
    for before in (0, 3):
        params = subject.pair() + subject.params()
        optimizer = subject.build(params, **_decaying(subject))
        subject.run(optimizer, params, before)
        absent = {index for index in range(len(params)) if index % 2}
        start, state = snapshot(params), state_snapshot(optimizer)

        def gradient(t: int, index: int, param: torch.Tensor, absent: set[int] = absent) -> Any:
            return None if index in absent else subject.gradient(t, index, param)

        end = subject.run(optimizer, params, 2, start=before, gradient=gradient)
        later = state_snapshot(optimizer)
        for index in absent:
            expect(
                same_bits(start[index], end[index]),
                "a parameter without gradient to stay as it is",
                f"it moved by {(end[index] - start[index]).abs().max().item():.1e} (after {before} steps)",
                "skip parameters whose grad is None before decay and momentum",
            )
            if before:
                expect(
                    same_bits(state.get(params[index], {}), later.get(params[index], {})),
                    "the state of a parameter without gradient to stay as it is",
                    "it changed",
                )
        moved = [not same_bits(start[i], end[i]) for i in range(len(params)) if i not in absent]
        expect(all(moved), "the parameters that have a gradient to move", "some did not")


@check("step.grad_unchanged", 7)
def gradient_unchanged(subject: Subject) -> None:
    """p.grad is the same tensor with the same bits after the step."""
    for overrides in _option_sets(subject):
        params = subject.params()
        optimizer = subject.build(params, **overrides)
        for t in range(3):
            gradients = [subject.gradient(t, index, param) for index, param in enumerate(params)]
            kept = snapshot(gradients)
            subject.step(optimizer, params, t, lambda _, index, param, g=gradients: g[index])
            for param, gradient, before in zip(params, gradients, kept, strict=True):
                expect(param.grad is gradient, "p.grad to be the same tensor after step()", "it was replaced")
                expect(
                    same_bits(gradient, before),
                    "p.grad to be unchanged by step()",
                    f"it changed by {(gradient - before).abs().max().item():.1e} ({overrides or 'defaults'})",
                    "work on a copy: decay, clipping and momentum must not write into p.grad",
                )


def _option_sets(subject: Subject) -> list[dict[str, Any]]:
    options = [{}, _decaying(subject)] if _decaying(subject) else [{}]
    if subject.takes("maximize", True):
        options.append({**_decaying(subject), "maximize": True})
    return options


@check("step.grad_not_kept", 7)
def gradient_not_kept(subject: Subject) -> None:
    """State does not alias p.grad: writing into the gradient after a step changes nothing."""
    need(not subject.closure_required, "the closure writes the gradients")
    params, twins = subject.params(), subject.params()
    optimizer, other = subject.build(params), subject.build(twins)
    for t in range(4):
        subject.step(optimizer, params, t)
        subject.step(other, twins, t)
        with torch.no_grad():
            for param in params:
                if param.grad is not None:
                    param.grad.fill_(100.0)
    expect(
        same_bits(snapshot(params), snapshot(twins)),
        "the next steps not to depend on what happens to p.grad after a step",
        "they do",
        "clone the gradient when it starts a buffer",
    )
