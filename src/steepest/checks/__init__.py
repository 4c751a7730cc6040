"""A contract for optimizers as a set of named checks that anyone can run on any class.

    >>> import torch
    >>> from steepest.checks import check_optimizer
    >>> report = check_optimizer(torch.optim.AdamW, lr=1e-3)
    >>> report.passed
    True

``print(report)`` shows every check; :func:`parametrize_checks` makes one pytest test of each;
``steepest check module:Class`` does the same from a shell. :func:`invariance` measures to which changes of
coordinates an optimizer is invariant.
"""

from steepest.checks import (
    closure,
    extremes,
    hypers,
    identity,
    param_groups,
    paths,
    precision,
    schedulers,
    shapes,
    state,
    stepping,
)
from steepest.checks.command import main_check
from steepest.checks.invariances import invariance, invariance_table, main_invariance
from steepest.checks.registry import CLAUSES, all_checks
from steepest.checks.report import CheckReport, CheckResult
from steepest.checks.run import check_optimizer
from steepest.checks.testing import parametrize_checks

__all__ = [
    "CLAUSES",
    "CheckReport",
    "CheckResult",
    "all_checks",
    "check_optimizer",
    "invariance",
    "invariance_table",
    "main_check",
    "main_invariance",
    "parametrize_checks",
]

# Importing a module of checks registers them; the names themselves are not part of the interface.
del closure, extremes, hypers, identity, param_groups, paths, precision, schedulers, shapes, state, stepping
