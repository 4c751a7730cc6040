"""The body of ``steepest check``: a target and options in, a report and an exit code out."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Iterable
from typing import Any

from steepest._resolve import TargetError, load_target
from steepest.checks.registry import all_checks
from steepest.checks.run import check_optimizer
from steepest.spelling import suggest

__all__ = ["main_check"]

_RESERVED = ("cls", "strict", "only", "skip", "device")


def main_check(
    target: str,
    *,
    strict: bool = False,
    kwargs: str | dict[str, Any] | None = None,
    only: str | Iterable[str] | None = None,
    skip: str | Iterable[str] | None = None,
    json: bool = False,
    device: str = "cpu",
    out: Callable[[str], Any] = print,
    err: Callable[[str], Any] | None = None,
) -> int:
    """Check the class named by ``target`` and print the report.

    Args:
        target: ``"module:Class"`` or the bare name of an optimizer of steepest or ``torch.optim``.
        strict: count strict checks.
        kwargs: constructor arguments, as a dictionary or as a JSON object. JSON arrays become tuples.
        only, skip: names or groups of checks; empty means no restriction.
        json: print the report as one JSON object.
        device: where the parameters live.
        out, err: receive the lines printed; ``err`` defaults to ``out``.

    Returns:
        0 if the class passed, 1 if a check failed, 2 if the request itself was wrong (one line says why).
    """
    complain = err or out
    try:
        cls = load_target(target)
        arguments = _parse(kwargs)
        only, skip = _listed(only) or None, _listed(skip) or None
        all_checks(only, skip)
        _check_device(device)
        report = check_optimizer(cls, strict=strict, only=only, skip=skip, device=device, **arguments)
    except (TargetError, ValueError, TypeError) as error:
        complain(f"error: {' '.join(str(error).split())}")
        return 2
    out(json_module.dumps(report.to_dict(), indent=2) if json else str(report))
    return 0 if report.passed else 1


def _listed(names: str | Iterable[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def _parse(kwargs: str | dict[str, Any] | None) -> dict[str, Any]:
    if isinstance(kwargs, str):
        try:
            kwargs = json_module.loads(kwargs)
        except json_module.JSONDecodeError as error:
            raise ValueError(
                f"kwargs must be a JSON object such as '{{\"lr\": 0.1}}', got {kwargs!r}: {error}"
            ) from error
    if not isinstance(kwargs, (dict, type(None))):
        raise ValueError(f"kwargs must be a JSON object such as '{{\"lr\": 0.1}}', got {kwargs!r}")
    for name in kwargs or {}:
        if name in _RESERVED:
            raise ValueError(f"kwargs may not contain {name!r}; it is an option of the command")
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in (kwargs or {}).items()
    }


def _check_device(device: str) -> None:
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        hint = suggest(device, ["cpu", "cuda", "mps"])
        raise ValueError(
            f"device {device!r} cannot be used here{hint}: {str(error).splitlines()[0]}"
        ) from error
