"""``check_optimizer``: run every named check on one optimizer class."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterable
from typing import Any

import torch

from steepest.checks.documented import documented_exception
from steepest.checks.registry import Check, CheckFailed, NotApplicable, NotClaimed, all_checks
from steepest.checks.report import CheckReport, CheckResult
from steepest.checks.subject import Subject

__all__ = ["check_optimizer", "run_check"]

_FIRST = "step.runs"


def check_optimizer(
    cls: type[torch.optim.Optimizer],
    *,
    strict: bool = False,
    only: str | Iterable[str] | None = None,
    skip: str | Iterable[str] | None = None,
    device: str = "cpu",
    **kwargs: Any,
) -> CheckReport:
    """Check an optimizer class against the contract a training program relies on.

    Some 80 small checks, each a few steps on tiny parameters with fixed gradients, grouped in 12 clauses (see
    :data:`steepest.checks.CLAUSES`). There are two kinds. *Ordinary* checks test what ``torch.optim``
    documents or its own classes do: groups, closures, saving, resuming, shapes, schedulers. *Strict* checks
    go beyond: suggestions in error messages, float32 state of bfloat16 parameters, gradients of norm 1e+30,
    float64 without hidden casts. Every check always runs. Without ``strict`` an unmet strict check is a
    visible note that does not count; with it, it fails, and so does everything the class does not offer (no
    ``maximize`` argument, shapes the constructor refuses), for the strict contract has no optional parts.

    Args:
        cls: a subclass of ``torch.optim.Optimizer``. Shapes its constructor refuses with a ``ValueError``,
            ``TypeError`` or ``NotImplementedError`` are not claimed; a rule for matrices alone is checked on
            matrices.
        strict: count strict checks.
        only: names or groups of checks to run, as ``"state.pickle"`` or ``"state"``. Default: all.
        skip: names or groups of checks not to run.
        device: where the parameters live.
        **kwargs: passed to the constructor of ``cls``. A required ``lr`` that is not given is 0.01.

    Returns:
        A :class:`~steepest.checks.CheckReport`: ``report.passed`` is the verdict, ``print(report)`` a table.

    Raises:
        TypeError: ``cls`` is not an optimizer class, or needs an argument that is not given.
        ValueError: ``only`` or ``skip`` names no check.

    An exception of the class under test is a failure of the check it happens in. If the class cannot take an
    ordinary step the other checks are skipped. The class must take dense gradients, so
    ``torch.optim.SparseAdam`` cannot be checked.

    Example:
        >>> import torch
        >>> from steepest.checks import check_optimizer
        >>> check_optimizer(torch.optim.SGD, lr=0.1, momentum=0.9).passed
        True
    """
    if not isinstance(cls, type) or not issubclass(cls, torch.optim.Optimizer):
        raise TypeError(f"cls must be a subclass of torch.optim.Optimizer, got {cls!r}")
    if cls is torch.optim.Optimizer:
        raise TypeError("cls must be a subclass of torch.optim.Optimizer, not the base class itself")
    chosen = all_checks(only, skip)
    subject = Subject(cls, kwargs, device)
    results: list[CheckResult] = []
    first = run_check(all_checks(_FIRST)[0], subject, strict)
    for item in chosen:
        if item.name == _FIRST:
            results.append(first)
        elif first.status == "fail":
            results.append(
                CheckResult(item.name, item.clause, item.strict, "skip", f"not run: {_FIRST} failed")
            )
        else:
            results.append(run_check(item, subject, strict))
    if first.status == "fail" and first not in results:
        results.insert(0, first)
    given = ", ".join(f"{name}={value!r}" for name, value in subject.kwargs.items())
    return CheckReport(f"{cls.__module__}.{cls.__qualname__}({given})", strict, tuple(results))


def run_check(item: Check, subject: Subject, strict: bool) -> CheckResult:
    """Run one check; whatever the class under test raises becomes part of the result."""
    started = time.perf_counter()

    def result(status: str, message: str = "", details: str = "") -> CheckResult:
        return CheckResult(
            item.name, item.clause, item.strict, status, message, time.perf_counter() - started, details
        )

    bad = "fail" if strict or not item.strict else "note"
    reason = documented_exception(subject.cls, item.name)
    if reason and not strict:
        return result("skip", f"not claimed: {reason}")
    devices = [subject.device] if subject.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), torch.enable_grad():
            item.run(subject)
    except NotApplicable as error:
        return result("skip", f"not applicable: {error}")
    except NotClaimed as error:
        return (
            result("fail", f"expected by the strict contract; {error}")
            if strict
            else result("skip", f"not claimed: {error}")
        )
    except CheckFailed as error:
        return result(bad, str(error), traceback.format_exc() if error.__cause__ else "")
    except Exception as error:
        return result(bad, _describe(item, error), traceback.format_exc())
    return result("pass")


def _describe(item: Check, error: Exception) -> str:
    text = " ".join(str(error).split())
    text = text if len(text) <= 200 else text[:197] + "..."
    where = _deepest_foreign_frame(error)
    return f"expected: {item.summary}\nit raised {type(error).__name__}: {text}{where}"


def _deepest_foreign_frame(error: Exception) -> str:
    """`` (file.py:12)``, the last line outside torch and these checks: where the author can look."""
    foreign = ""
    for frame in traceback.extract_tb(error.__traceback__):
        path = frame.filename.replace("\\", "/")
        if "/torch/" not in path and "/steepest/checks/" not in path:
            foreign = f" ({path.rpartition('/')[2]}:{frame.lineno})"
    return foreign
