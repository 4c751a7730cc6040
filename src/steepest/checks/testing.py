"""One pytest test per named check."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from steepest.checks.registry import Check, all_checks
from steepest.checks.run import run_check
from steepest.checks.subject import Subject

__all__ = ["parametrize_checks"]


def parametrize_checks(
    cls: type[torch.optim.Optimizer],
    *,
    strict: bool = False,
    only: str | Iterable[str] | None = None,
    skip: str | Iterable[str] | None = None,
    device: str = "cpu",
    **kwargs: Any,
) -> Any:
    """A decorator that gives pytest one test per named check of ``cls``.

    The decorated function takes one argument, ``check``, and calls it. A failing check fails its test with
    the check's message, one that is not claimed or not met outside strict mode is skipped with the reason.
    Arguments are those of :func:`~steepest.checks.check_optimizer`. Only this function needs pytest.

    Example, a whole test file::

        from steepest.checks import parametrize_checks
        from my_package import MyOptimizer

        @parametrize_checks(MyOptimizer, lr=0.1)
        def test_contract(check):
            check()
    """
    import pytest

    chosen = all_checks(only, skip)
    cases = [_Case(item, cls, kwargs, strict, device) for item in chosen]
    return pytest.mark.parametrize("check", cases, ids=[item.name for item in chosen])


class _Case:
    """One check of one class; calling it passes, fails or skips the running test."""

    def __init__(
        self, item: Check, cls: type[torch.optim.Optimizer], kwargs: dict[str, Any], strict: bool, device: str
    ):
        self.item, self.cls, self.kwargs, self.strict, self.device = item, cls, kwargs, strict, device

    def __repr__(self) -> str:
        return f"<check {self.item.name}>"

    def __call__(self) -> None:
        import pytest

        result = run_check(self.item, Subject(self.cls, self.kwargs, self.device), self.strict)
        if result.status == "fail":
            message = f"{self.cls.__name__}: {result.name} (clause {result.clause})\n{result.message}"
            pytest.fail(f"{message}\n{result.details}".rstrip(), pytrace=False)
        if result.status != "pass":
            pytest.skip(result.message)
