"""Clause 11: ``maximize``, and agreement of the fast paths with the plain one."""

from __future__ import annotations

from typing import Any

import torch

from steepest.checks.registry import NotClaimed, check, expect
from steepest.checks.subject import Subject, displacement, need, noise, same_bits

_STEPS = 20
# In float64 paths agree to rounding, unless a method works in bfloat16 inside (about 1e-2).
_TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-3}


@check("maximize.negated_gradient", 11)
def negated_gradient(subject: Subject) -> None:
    """maximize=True with gradient g equals maximize=False with -g."""
    subject.claim("maximize", True)
    params, twins = subject.params(), subject.params()
    decay = {"weight_decay": 0.1} if subject.takes("weight_decay", 0.1) else {}

    def negative(t: int, index: int, param: torch.Tensor) -> torch.Tensor:
        return -subject.gradient(t, index, param)

    end = subject.run(subject.build(params, maximize=True, **decay), params, 5)
    expected = subject.run(subject.build(twins, maximize=False, **decay), twins, 5, gradient=negative)
    gap = displacement(subject.params(), end, expected)
    expect(
        gap < 1e-5,
        "maximize=True to equal minimising with the negated gradient",
        f"the weights differ by {gap:.1e} of the distance travelled",
        "negate the gradient before anything else uses it; weight decay keeps its sign",
    )


def _agree(subject: Subject, argument: str) -> None:
    subject.claim(argument, False)
    compared = False
    for dtype, tolerance in _TOLERANCES.items():
        plain = subject.params(dtype=dtype)
        expected = subject.run(subject.build(plain, **{argument: False}), plain, _STEPS, gradient=_noise_only)
        for choice in (True, None):
            params = subject.params(dtype=dtype)
            end = _result(subject, params, {argument: choice})
            if end is None:
                expect(choice, f"{argument}=None to find a path for {dtype}", "it raised an error")
                continue
            compared = compared or bool(choice)
            gap = displacement(subject.params(dtype=dtype), end, expected)
            expect(
                gap < tolerance,
                f"{argument}={choice} to agree with {argument}=False to {tolerance:.0e} in {dtype}",
                f"after {_STEPS} steps the weights differ by {gap:.1e} of the distance travelled",
            )
    need(compared, f"{argument}=True raises an error here, so there is one path only")


def _result(subject: Subject, params: Any, overrides: dict[str, Any]) -> Any:
    """The weights after the run, or None where the class says that it has no such path."""
    try:
        return subject.run(subject.build(params, **overrides), params, _STEPS, gradient=_noise_only)
    except (RuntimeError, ValueError, NotImplementedError):
        return None


def _noise_only(t: int, index: int, param: torch.Tensor) -> torch.Tensor:
    return noise(param.shape, t, index).to(param.device, param.dtype, copy=True)


@check("paths.fused_agrees", 11)
def fused_agrees(subject: Subject) -> None:
    """fused=True, where it exists, and fused=None agree with fused=False over 20 steps."""
    _agree(subject, "fused")


@check("paths.foreach_agrees", 11)
def foreach_agrees(subject: Subject) -> None:
    """foreach=True and foreach=None agree with foreach=False over 20 steps."""
    if not subject.takes("foreach", False):
        need(not subject.takes("fused", False), "the fast path is chosen by 'fused'")
        raise NotClaimed("the constructor has no argument 'foreach'")
    _agree(subject, "foreach")


@check("paths.repeatable", 11)
def repeatable(subject: Subject) -> None:
    """The same run twice gives the same bits."""
    first, second = subject.trajectory(subject.params(), 10), subject.trajectory(subject.params(), 10)
    expect(
        same_bits(first, second),
        "two equal runs to give equal weights",
        "they differ",
        "take random numbers from torch's generator, and keep no state on the class",
    )
