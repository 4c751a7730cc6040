"""Clause 12: nothing in a float64 step passes through a narrower type.

How a hidden cast shows: a step is a function of gradients, weights and lr. Its slope, measured with a
relative perturbation of 1e-9, must equal its slope measured with larger ones. A value that passes through
float32 (spacing 6e-8) or bfloat16 (4e-3) does not see the small perturbation, so the slopes differ by
whatever that path contributes: 1e-5 is the larger one that float32 sees and 3e-3 the one that bfloat16 sees.
A rule that jumps (a sign) has slope zero except where an entry crosses the jump. So slopes are compared entry
by entry, a few entries may disagree, and one that reacts to neither 1e-9 nor 1e-5 is left out at 3e-3.
A statistic that has seen fewer gradients than it has dimensions is singular, and its inverse root reacts in
proportion to nothing, so gradients are perturbed only once it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from steepest.checks.registry import check, expect
from steepest.checks.subject import Subject, need, noise, state_of, state_tensors

_SMALL, _LARGE = 1e-9, (1e-5, 3e-3)
_STEPS, _SETTLED = 16, 10  # gradients are perturbed from step 10 on
_MANY = 0.3  # fraction of a parameter's entries


def _wobble(shape: Sequence[int], key: int, size: float) -> Tensor:
    return 1.0 + size * torch.tanh(noise(shape, 500 + key, 77))


def _end(subject: Subject, *, gradients: float = 0.0, weights: float = 0.0, lr: float = 0.0) -> list[Tensor]:
    """The weights after a short float64 run in which one input is scaled by 1 + size * fixed noise."""
    params = subject.params(dtype=torch.float64)
    with torch.no_grad():
        for index, param in enumerate(params):
            param.mul_(0.03)  # small weights, so that rounding of the weights hides little of the step
            param.mul_(_wobble(param.shape, index, weights).to(param.device))
    optimizer = subject.build(params)
    for group in optimizer.param_groups:
        group["lr"] = float(group["lr"]) * (1.0 + lr)

    def gradient(t: int, index: int, param: Tensor) -> Tensor:
        size = gradients if t >= _SETTLED else 0.0
        clean = noise(param.shape, t, index) * _wobble(param.shape, 31 * t + index + 50, size)
        return clean.to(param.device, param.dtype)

    return subject.run(optimizer, params, _STEPS, gradient=gradient)


def _slopes(run: Callable[[float], list[Tensor]], size: float) -> list[Tensor]:
    return [(above - below) / (2 * size) for above, below in zip(run(size), run(-size), strict=True)]


def _act_in_proportion(what: str, run: Callable[[float], list[Tensor]], *, must_react: bool) -> None:
    floors = [1e-4 * value.norm().item() for value in run(0.0)]
    smalls, reacted, jumping = _slopes(run, _SMALL), False, set()
    for size in _LARGE:
        larges = _slopes(run, size)
        for index, (small, large, floor) in enumerate(zip(smalls, larges, floors, strict=True)):
            if max(small.norm().item(), large.norm().item()) < floor:
                jumping.add(index)
            if index in jumping:
                continue
            reacted = True
            typical = max(large.norm().item(), floor) / large.numel() ** 0.5
            off = ((small - large).abs() > 0.1 * typical).double().mean().item()
            expect(
                off < _MANY,
                f"a relative change of {_SMALL:.0e} of {what} to act in proportion in float64",
                f"{100 * off:.0f} % of the entries of a {tuple(small.shape)} parameter react otherwise than "
                f"to a change of {size:.0e}",
                "something is cast to float32 or narrower on the way",
            )
    if not reacted:
        expect(not must_react, f"float64 weights to react to a change of {what}", "they do not react at all")
        need(False, f"the result does not depend on the size of {what}")


@check("precision.float64_gradients", 12, strict=True)
def float64_gradients(subject: Subject) -> None:
    """With float64 parameters a change of 1e-9 in the gradients acts in proportion."""
    _act_in_proportion("the gradients", lambda size: _end(subject, gradients=size), must_react=False)


@check("precision.float64_weights", 12, strict=True)
def float64_weights(subject: Subject) -> None:
    """With float64 parameters a change of 1e-9 in the weights acts in proportion."""
    _act_in_proportion("the weights", lambda size: _end(subject, weights=size), must_react=True)


@check("precision.float64_lr", 12, strict=True)
def float64_lr(subject: Subject) -> None:
    """With float64 parameters a change of 1e-9 in lr acts in proportion."""
    _act_in_proportion("lr", lambda size: _end(subject, lr=size), must_react=True)


@check("precision.float64_state", 12, strict=True)
def float64_state(subject: Subject) -> None:
    """The state of float64 parameters is float64, scalars apart."""
    params = subject.params(dtype=torch.float64)
    optimizer = subject.build(params)
    subject.run(optimizer, params, 3)
    for param in params:
        expect(
            param.dtype == torch.float64, "float64 parameters to stay float64", f"they became {param.dtype}"
        )
        for path, tensor in state_tensors(state_of(optimizer, param)):
            narrow = tensor.is_floating_point() and tensor.numel() > 1 and tensor.dtype != torch.float64
            expect(not narrow, f"state{path} of a float64 parameter to be float64", f"it is {tensor.dtype}")
