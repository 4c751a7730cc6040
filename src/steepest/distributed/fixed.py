"""A rule for one part of a parameter: what it reads of the shape is told, since a part's shape is another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from torch import Size, Tensor

from steepest.norms import Norm
from steepest.operator_norms import Scaled
from steepest.rule import Rule
from steepest.steps import MeanSide, StepLength, UnitLMO
from steepest.views import stack_shape


@dataclass(frozen=True)
class Times(Norm):
    """A norm whose unit ball is scaled by a number."""

    base: Norm
    number: float

    def value(self, x: Tensor) -> Tensor:
        """Return |X| / number."""
        return self.base.value(x) / self.number

    def dual(self, g: Tensor) -> Tensor:
        """Return number |G|*."""
        return self.base.dual(g) * self.number

    def direction(self, g: Tensor) -> Tensor:
        """Return number u(G)."""
        return self.base.direction(g) * self.number


@dataclass(frozen=True)
class Rate(StepLength):
    """The direction as it is, with lr times a number."""

    number: float

    def rate(self, shape: Size) -> float:
        """Return the number for every shape."""
        return self.number

    def __call__(self, direction: Tensor, x: Tensor, hypers: Mapping[str, Any]) -> Tensor:
        """Return the direction."""
        return direction


@lru_cache(maxsize=4096)
def fixed(rule: Rule, shape: Size) -> Rule:
    """Return an elementwise ``rule``, made for ``shape``, as it is for any part of a matrix of that shape."""
    _, m, n = stack_shape(shape, 0)
    if isinstance(rule.norm, Scaled):
        rule = replace(rule, norm=Times(rule.norm.base, rule.norm.factor_of(m, n)))
    if isinstance(rule.step, UnitLMO) and (factor := rule.step.factor_of(m, n)) != 1.0:
        rule = replace(rule, norm=Times(rule.norm, factor))
    if isinstance(rule.step, UnitLMO) and rule.step.scale is not None:
        rule = replace(rule, step=UnitLMO())
    if isinstance(rule.step, MeanSide):
        rule = replace(rule, step=Rate(rule.step.rate(shape)))
    return rule
