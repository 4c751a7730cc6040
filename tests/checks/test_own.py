"""Every public optimizer of steepest satisfies the whole contract, strictly."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import steepest
from steepest.checks import check_optimizer

ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "Steepest": [
        {"norm": steepest.Spectral(), "momentum": steepest.EMA(0.9), "step": steepest.UnitLMO()},
        {"preconditioner": steepest.Diagonal(), "step": steepest.DualScaled()},
    ],
    "ClippedScion": [{"rho": 1.0}],
}
# Built from a model, not from parameters: hooks collect what its statistics need.
NEEDS_A_MODEL = {"KFAC"}
# One step length for the whole network cannot be found by optimizers that see one parameter each.
SKIPPED = {"ClippedScion": ["identity.one_parameter_per_optimizer"]}


def cases() -> list[Any]:
    found = []
    for name in steepest.__all__:
        cls = getattr(steepest, name)
        if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) and name not in NEEDS_A_MODEL:
            for number, kwargs in enumerate(ARGUMENTS.get(name, [{}])):
                found.append(pytest.param(cls, kwargs, id=f"{name}-{number}" if number else name))
    return found


@pytest.mark.no_cover  # minutes more, and other tests take the same lines
@pytest.mark.parametrize(("cls", "kwargs"), cases())
def test_satisfies_the_strict_contract(cls, kwargs):
    report = check_optimizer(cls, strict=True, skip=SKIPPED.get(cls.__name__), **kwargs)
    assert report.passed, str(report)
