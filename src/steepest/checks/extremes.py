"""Clause 8: gradients at the ends of the number range, and beyond it."""

from __future__ import annotations

from typing import Any

import torch

from steepest.checks.registry import CheckFailed, NotClaimed, check, expect
from steepest.checks.subject import (
    Subject,
    all_finite,
    noise,
    same_bits,
    snapshot,
    state_of,
    state_snapshot,
    state_tensors,
)

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def _of_norm(size: float) -> Any:
    def gradient(t: int, index: int, param: torch.Tensor) -> torch.Tensor:
        direction = noise(param.shape, t, index)
        return (size * (direction / direction.norm())).to(param.device, param.dtype)

    return gradient


def _finite_at(subject: Subject, size: float, dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    size = min(max(size, 16 * limits.tiny), limits.max / 16)  # the nearest norm the dtype can hold
    params = subject.params(dtype=dtype)
    optimizer = subject.build(params)
    for after in (0, 2):
        subject.run(optimizer, params, after)
        end = subject.run(optimizer, params, 3, start=after, gradient=_of_norm(size))
        expect(
            all_finite(end),
            f"finite {dtype} weights from gradients of norm {size:.0e} (after {after} ordinary steps)",
            "some are NaN or infinite",
            "divide by the largest entry before squaring, and guard divisions by zero",
        )
        kept = all(param.dtype == dtype for param in params)
        expect(kept, f"parameters to stay {dtype}", "the dtype changed")


@check("scale.bfloat16", 8)
def bfloat16(subject: Subject) -> None:
    """bfloat16 parameters train: finite, moving, dtype kept."""
    _trains_in(subject, torch.bfloat16)


@check("scale.float16", 8, strict=True)
def float16(subject: Subject) -> None:
    """float16 parameters train: finite, moving, dtype kept."""
    _trains_in(subject, torch.float16)


def _trains_in(subject: Subject, dtype: torch.dtype) -> None:
    params = subject.params(dtype=dtype)
    start = snapshot(params)
    end = subject.run(subject.build(params), params, 5)
    hint = "an eps of 1e-8 is zero in float16; keep statistics in float32" if dtype == torch.float16 else ""
    expect(all_finite(end), f"finite {dtype} weights after 5 steps", "some are NaN or infinite", hint)
    expect(end[0].dtype == dtype, f"parameters to stay {dtype}", f"they became {end[0].dtype}")
    expect(not same_bits(start, end), f"{dtype} weights to move", "none did")


@check("scale.tiny_gradients", 8, strict=True)
def tiny_gradients(subject: Subject) -> None:
    """Gradients of norm 1e-30 give finite updates in every floating dtype."""
    for dtype in _DTYPES:
        _finite_at(subject, 1e-30, dtype)


@check("scale.huge_gradients", 8, strict=True)
def huge_gradients(subject: Subject) -> None:
    """Gradients of norm 1e+30, or near a narrower dtype's limit, give finite updates."""
    for dtype in _DTYPES:
        _finite_at(subject, 1e30, dtype)


def _bad_at(position: int, value: float, subject: Subject) -> Any:
    def gradient(t: int, index: int, param: torch.Tensor) -> torch.Tensor:
        good = subject.gradient(t, index, param)
        if index == position:
            good.view(-1)[0] = value
        return good

    return gradient


@check("nonfinite.not_silent", 8)
def not_silent(subject: Subject) -> None:
    """A NaN or infinite gradient is refused, skipped or visible, but never a hidden poison in the state."""
    for value in (float("nan"), float("inf")):
        params = subject.params()
        optimizer = subject.build(params)
        subject.run(optimizer, params, 2)
        start = snapshot(params)
        try:
            subject.run(optimizer, params, 1, start=2, gradient=_bad_at(0, value, subject))
        except Exception:
            unchanged = same_bits(start, snapshot(params))
            expect(
                unchanged, f"an error for a gradient of {value} before any weight moves", "weights had moved"
            )
        if not all_finite(params):
            continue  # visible in the weights
        reached = _entries_that_move(subject, optimizer, params)
        clean = subject.params()
        healthy = subject.build(clean)
        subject.run(healthy, clean, 3)
        frozen = int((_entries_that_move(subject, healthy, clean) & ~reached).sum())
        state = state_tensors(state_of(optimizer, params[0]))
        poisoned = [path for path, tensor in state if not all_finite([tensor])]
        expect(
            all_finite(params) and not frozen,
            f"training to go on after a gradient with one {value}, since the weights stayed finite",
            f"{'weights turned non-finite later' if not frozen else f'{frozen} entries never move again'}; "
            f"non-finite state: {', '.join(poisoned) or 'none'}",
            "refuse or skip the step before the state is updated, or let the weights show it",
        )


def _entries_that_move(subject: Subject, optimizer: Any, params: list[torch.nn.Parameter]) -> torch.Tensor:
    """Which entries of the first parameter move in at least one of four ordinary steps."""
    moved = torch.zeros_like(params[0], dtype=torch.bool)
    for t in range(3, 7):
        before = params[0].detach().clone()
        subject.run(optimizer, params, 1, start=t)
        moved |= before != params[0].detach()
    return moved


@check("nonfinite.policy", 8, strict=True)
def policy(subject: Subject) -> None:
    """nonfinite="raise", "skip" and "propagate" each do what they say."""
    if not subject.takes("nonfinite", "raise"):
        raise NotClaimed("the constructor has no argument 'nonfinite'")
    try:
        subject.build(subject.params(), nonfinite="ignore")
    except ValueError:
        pass
    else:
        raise CheckFailed("expected ValueError for nonfinite='ignore'; it was accepted")
    for value in (float("nan"), float("inf"), float("-inf")):
        for position in (0, len(subject.shapes()) - 1):
            _raises(subject, value, position)
            _skips(subject, value, position)
            _propagates(subject, value, position)


def _prepared(subject: Subject, choice: str) -> tuple[list[torch.nn.Parameter], Any]:
    params = subject.params()
    optimizer = subject.build(params, nonfinite=choice)
    subject.run(optimizer, params, 2)
    return params, optimizer


def _raises(subject: Subject, value: float, position: int) -> None:
    params, optimizer = _prepared(subject, "raise")
    start, state = snapshot(params), state_snapshot(optimizer)
    try:
        subject.run(optimizer, params, 1, start=2, gradient=_bad_at(position, value, subject))
    except Exception:
        expect(same_bits(start, snapshot(params)), "nonfinite='raise' to leave every weight", "some moved")
        expect(
            _same_state(state, state_snapshot(optimizer)),
            "nonfinite='raise' to leave the state",
            "it changed",
        )
    else:
        raise CheckFailed(
            f"expected nonfinite='raise' to raise for a gradient with one {value}; nothing was raised"
        )


def _skips(subject: Subject, value: float, position: int) -> None:
    params, optimizer = _prepared(subject, "skip")
    start, state = snapshot(params), state_snapshot(optimizer)
    subject.run(optimizer, params, 1, start=2, gradient=_bad_at(position, value, subject))
    bad = params[position]
    expect(same_bits(start[position], bad.detach()), "nonfinite='skip' to leave the parameter", "it changed")
    expect(
        same_bits(state.get(bad, {}), state_of(optimizer, bad)),
        "nonfinite='skip' to leave the parameter's state",
        "it changed",
    )
    end = subject.run(optimizer, params, 2, start=3)
    expect(all_finite(end), "finite weights after a skipped step", "some are NaN or infinite")
    expect(not same_bits(start[position], end[position]), "training to go on after a skip", "it did not")


def _propagates(subject: Subject, value: float, position: int) -> None:
    params, optimizer = _prepared(subject, "propagate")
    subject.run(optimizer, params, 1, start=2, gradient=_bad_at(position, value, subject))
    expect(
        not all_finite([params[position]]),
        f"nonfinite='propagate' to show a gradient with one {value} in the weights",
        "they stayed finite",
    )


def _same_state(left: dict, right: dict) -> bool:
    return left.keys() == right.keys() and all(same_bits(left[key], right[key]) for key in left)
