"""The numbers in ``param_groups``: what is allowed, and what a rule sees of them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from steepest.roles import ROLES
from steepest.rounding import ROUNDINGS
from steepest.spelling import suggest

Check = Callable[[str, Any], None]


def number(low: float, high: float = math.inf, *, ends: str = "[)") -> Check:
    """Accept a number, or a tensor of one number, between two ends that belong to the range or not."""
    allowed = f"{ends[0]}{low:g}, {high:g}{ends[1]}"

    def check(name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            if value.numel() != 1 or not (value.is_floating_point() or value.dtype == torch.int64):
                raise ValueError(
                    f"{name} must be a number in {allowed} or a tensor holding one, got a tensor of shape "
                    f"{tuple(value.shape)} and dtype {value.dtype}"
                )
            read = float(value)
        elif isinstance(value, numbers.Real) and not isinstance(value, bool):
            read = float(value)
        else:
            raise TypeError(f"{name} must be a number in {allowed}, got {value!r}")
        inside = low < read < high or (read == low and ends[0] == "[") or (read == high and ends[1] == "]")
        if not inside:
            raise ValueError(f"{name} must be in {allowed}, got {value!r}")

    return check


def _two_numbers(*ends: str) -> Check:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, tuple | list) or len(value) != 2:
            allowed = " and ".join(dict.fromkeys(f"[0, 1{end}" for end in ends))
            raise ValueError(f"{name} must be two numbers in {allowed}, got {value!r}")
        for i, (beta, end) in enumerate(zip(value, ends, strict=True)):
            number(0, 1, ends=f"[{end}")(f"{name}[{i}]", beta)

    return check


def optional(check: Check) -> Check:
    """Accept None, and what another check accepts."""

    def or_none(name: str, value: Any) -> None:
        if value is not None:
            check(name, value)

    return or_none


def integer(low: int | None = None) -> Check:
    """Accept an integer, at least ``low``."""
    allowed = "an integer" if low is None else f"an integer >= {low}"

    def check(name: str, value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be {allowed}, got {value!r}")
        if low is not None and value < low:
            raise ValueError(f"{name} must be {allowed}, got {value!r}")

    return check


def _sizes(name: str, value: Any) -> None:
    if not isinstance(value, tuple | list) or not all(type(size) is int and size > 0 for size in value):
        raise TypeError(f"{name} must be a list of integers >= 1, got {value!r}")


def one_of(*choices: Any) -> Check:
    """Accept one of a few values."""

    def check(name: str, value: Any) -> None:
        # Not `in`: 1 == True, and a string must not match a number.
        if not any(value is choice or (isinstance(choice, str) and value == choice) for choice in choices):
            raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")

    return check


CHECKS: dict[str, Check] = {
    "lr": number(0),
    "momentum": number(0, 1),
    "betas": _two_numbers(")", ")"),
    "beta2": number(0, 1),
    "eps": number(0),
    "weight_decay": number(0),
    "radius": number(0, ends="()"),
    "rho": number(0, ends="()"),
    "initial_accumulator_value": number(0),
    "accumulate": one_of("ema", "sum"),
    "polyak": one_of(True, False),
    "decoupled": one_of(True, False),
    "constrained": one_of(True, False),
    "nesterov": one_of(True, False),
    "steps": integer(1),
    "threshold": integer(0),
    "shift": integer(),
    "momentum_init": one_of("zero", "gradient"),
    "maximize": one_of(True, False),
    "fused": one_of(None, True, False),
    "nonfinite": one_of(None, "raise", "skip", "propagate"),
    "rounding": one_of(*ROUNDINGS),
    "momentum_dtype": one_of(None, torch.float32, torch.bfloat16),
    "precondition_frequency": integer(1),
    "max_precondition_dim": integer(1),
    "shampoo_beta": optional(number(0, 1)),
    "include_current": one_of(True, False),
    "ema": number(0, 1),
    "averaged": one_of(True, False),
    "batch_dims": integer(0),
    "role": one_of(*ROLES),
    "rule": one_of("matrix", "aux"),
    "split_sizes": optional(_sizes),
    "split_dim": one_of(0, 1),
}
"""What each name may hold, wherever it appears; the parts of a rule check their own structural choices."""

SUM_OR_AVERAGE: dict[str, Check] = {"betas": _two_numbers(")", "]")}
"""For methods that read a second beta of 1 as a sum."""

FREE_KEYS = frozenset(
    {
        "params",
        "param_names",
        "name",
        "initial_lr",
        "max_lr",
        "min_lr",
        "swa_lr",
        "lr_scale",
        "base_momentum",
        "max_momentum",
    }
)
"""Group keys that schedulers and trainers add, never mistaken for a misspelt hyperparameter."""


def validate(options: Mapping[str, Any], own: Mapping[str, Check] | None = None) -> None:
    """Raise a ``ValueError`` or ``TypeError`` that names the first bad value and what is allowed.

    ``own`` replaces what ``CHECKS`` says of a name.
    """
    checks = {**CHECKS, **(own or {})}
    for name, value in options.items():
        if name in checks:
            checks[name](name, value)


def reject_misspelt(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise a ``TypeError`` for a group key that is a misspelt hyperparameter, or one of other methods.

    Groups may carry keys of their user's own, so that only near misses are refused, and the names in
    ``CHECKS``; not ``weight_decay``, which trainers write into every group.
    """
    known = list(known)
    for name in given:
        if name in known or name in FREE_KEYS:
            continue
        if hint := suggest(name, known, cutoff=0.8):
            raise TypeError(f"{where} got an unknown key {name!r}{hint}")
        if name in CHECKS and name != "weight_decay":
            raise TypeError(f"{where} got {name!r}, which is not used here; known: {', '.join(known)}")


def resolve(group: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return lr, weight_decay and the named numbers of a group, as rules use them.

    ``betas`` becomes ``momentum`` and ``beta2`` for rules that have them. Tensors on the CPU are read as
    numbers; tensors on a device stay tensors, so that nothing waits for it.
    """
    values = {name: _read(group[name]) for name in ("lr", "weight_decay", *names) if name in group}
    if "betas" in group and any(name not in group for name in names):  # else they are another rule's
        values["momentum"], values["beta2"] = map(_read, group["betas"])
    return values


def _read(value: Any) -> Any:
    if isinstance(value, Tensor) and value.device.type == "cpu":
        return value.item()
    return value
