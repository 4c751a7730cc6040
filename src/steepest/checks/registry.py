"""The named checks, the clause each belongs to, and the ways a check can end."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steepest.spelling import suggest

if TYPE_CHECKING:
    from steepest.checks.subject import Subject

__all__ = ["CLAUSES", "Check", "CheckFailed", "NotApplicable", "NotClaimed", "all_checks", "check", "expect"]

CLAUSES = {
    1: "a torch.optim.Optimizer: parameters, groups, names, add_param_group, hooks",
    2: "step(closure) runs the closure with gradients enabled and returns its loss",
    3: "hyperparameters live in param_groups; bad ones are refused",
    4: "tensor hyperparameters and schedulers",
    5: "state is plain, keyed by parameters, and survives saving and copying",
    6: "resuming is bitwise",
    7: "zero gradients, lr = 0, missing gradients, gradients left alone",
    8: "tiny, huge and non-finite gradients",
    9: "every shape and layout; clear errors for sparse and complex",
    10: "nothing is cached that other libraries replace",
    11: "maximize, and all code paths agree",
    12: "float64 is computed in float64",
}


class CheckFailed(Exception):
    """The class under test broke the clause."""


class NotClaimed(Exception):
    """The class does not offer what the check tests. Under ``strict=True`` that is a failure."""


class NotApplicable(Exception):
    """The check has no meaning for this class or machine, strict or not."""


@dataclass(frozen=True)
class Check:
    """One named check: calling ``run(subject)`` returns if the class satisfies it and raises if not."""

    name: str
    clause: int
    strict: bool
    summary: str
    run: Callable[[Subject], None]


_CHECKS: dict[str, Check] = {}


def check(name: str, clause: int, *, strict: bool = False, summary: str = ""):
    """Register a function as the check ``name``. Its docstring's first line says what is expected."""

    def register(function: Callable[[Subject], None]) -> Callable[[Subject], None]:
        if name in _CHECKS or clause not in CLAUSES:
            raise ValueError(f"check {name!r} of clause {clause} exists already or names no clause")
        text = summary or (inspect.getdoc(function) or "").partition("\n")[0]
        _CHECKS[name] = Check(name, clause, strict, text.rstrip("."), function)
        return function

    return register


def all_checks(
    only: str | Iterable[str] | None = None, skip: str | Iterable[str] | None = None
) -> tuple[Check, ...]:
    """The registered checks in clause order. ``only`` and ``skip`` take names or groups (``"state"``).

    Raises:
        ValueError: a name is neither a check nor a group of checks.
    """
    wanted = _select(only) if only is not None else set(_CHECKS)
    unwanted = _select(skip) if skip is not None else set()
    chosen = [item for name, item in _CHECKS.items() if name in wanted - unwanted]
    return tuple(sorted(chosen, key=lambda item: item.clause))


def _select(names: str | Iterable[str]) -> set[str]:
    selected: set[str] = set()
    for name in [names] if isinstance(names, str) else names:
        found = {known for known in _CHECKS if known == name or known.startswith(f"{name}.")}
        if not found:
            groups = sorted({known.partition(".")[0] for known in _CHECKS})
            raise ValueError(f"no check is named {name!r}{suggest(name, [*_CHECKS, *groups])}")
        selected |= found
    return selected


def expect(condition: object, expected: str, happened: str, hint: str = "") -> None:
    """Fail the running check, in two readable lines, unless ``condition`` holds."""
    if not condition:
        raise CheckFailed(f"expected {expected}; {happened}" + (f"\nhint: {hint}" if hint else ""))
