"""Compose an optimizer from the four choices."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from steepest.momentum import Momentum
from steepest.norms import Norm
from steepest.optimizer import RuleOptimizer
from steepest.preconditioners import Preconditioner
from steepest.rounding import Rounding
from steepest.rule import Rule
from steepest.steps import DualScaled, StepLength

PARTS = ("norm", "preconditioner", "momentum", "step")


class Steepest(RuleOptimizer):
    """Any norm, in any coordinates, with any momentum and step length.

    Formula:
        M = momentum(G), T = into(M), U = -lmo(T), S = step(back(U))
        W <- (1 - lr weight_decay) W - lr S
        With nothing chosen: W <- W - lr G, plain gradient descent.
        Norms without a meaning for vectors leave vectors and scalars, and groups with ``rule="aux"``, to
        AdamW with ``aux``; the others take everything.

    Neighbours:
        Every optimizer of this library is a call of it.

    From AdamW:
        Depends on the step: unit steps of the spectral norm are Muon's, dual-scaled diagonal ones Adam's.

    State:
        What the parts keep: one buffer for momentum, one for a diagonal statistic, ``step`` where counted.

    When not to use:
        When a named method is the same: it documents its lr and reads better in a log.

    Args:
        params: parameters, groups, or (name, parameter) pairs; a group may name other parts.
        lr: step size.
        norm: default :class:`~steepest.Frobenius`.
        preconditioner: default :class:`~steepest.Identity`.
        momentum: default :class:`~steepest.NoMomentum`. Its coefficient stands in ``param_groups`` as
            ``momentum``, that of a diagonal statistic as ``beta2``.
        step: default :class:`~steepest.DualScaled`.
        recipe: a whole :class:`~steepest.Rule`, such as those in :mod:`steepest.recipes`; parts given beside
            it replace its own.
        weight_decay: decoupled decay, >= 0. Default 0.
        aux: hyperparameters of the auxiliary AdamW: lr (1e-3), betas (0.9, 0.999), eps (1e-8),
            weight_decay (0).
        maximize, fused, nonfinite, rounding, momentum_dtype: as in :class:`steepest.Adam`.

    Raises:
        ValueError, TypeError, RuntimeError, FloatingPointError: as in :class:`steepest.Adam`.

    Source:
        arXiv 2510.10777.

    Example:
        >>> import torch
        >>> from steepest import EMA, Diagonal, Spectral, Steepest, UnitLMO
        >>> model = torch.nn.Linear(8, 4, bias=False)
        >>> optimizer = Steepest(model.parameters(), 1e-3, norm=Spectral(), momentum=EMA(0.95),
        ...                      preconditioner=Diagonal(power=0.5, beta=0.95), step=UnitLMO())
        >>> model(torch.ones(1, 8)).sum().backward()
        >>> optimizer.step()
        >>> group = optimizer.param_groups[0]
        >>> group["momentum"], group["beta2"]
        (0.95, 0.95)
    """

    hybrid = True

    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        *,
        norm: Norm | None = None,
        preconditioner: Preconditioner | None = None,
        momentum: Momentum | None = None,
        step: StepLength | None = None,
        recipe: Rule | None = None,
        weight_decay: float = 0.0,
        aux: Mapping[str, Any] | None = None,
        maximize: bool = False,
        fused: bool | None = None,
        nonfinite: str | None = None,
        rounding: Rounding = "nearest",
        momentum_dtype: torch.dtype | None = None,
    ) -> None:
        if recipe is not None:
            _check_recipe(recipe)
        chosen = {"norm": norm, "preconditioner": preconditioner, "momentum": momentum, "step": step}
        parts: dict[str, Any] = {name: part for name, part in chosen.items() if part is not None}
        rule = replace(Rule(step=DualScaled()) if recipe is None else recipe, **parts)
        options = {"lr": lr, "weight_decay": weight_decay, "recipe": rule, **rule.hypers()}
        super().__init__(
            params,
            options,
            aux=aux,
            maximize=maximize,
            fused=fused,
            nonfinite=nonfinite,
            rounding=rounding,
            momentum_dtype=momentum_dtype,
        )

    @classmethod
    def recipe(cls, group: Mapping[str, Any]) -> Rule:
        """Return the group's own rule."""
        return group["recipe"]

    def _prepared(self, group: dict[str, Any]) -> dict[str, Any]:
        """Turn parts or a recipe named by a group into its recipe and their numbers."""
        group = dict(group)
        recipe = group.get("recipe", self.defaults["recipe"])
        _check_recipe(recipe)
        coefficient = isinstance(group.get("momentum"), numbers.Real | Tensor)
        named = [name for name in PARTS if name in group and not (name == "momentum" and coefficient)]
        parts = {name: group.pop(name) for name in named}
        if parts or "recipe" in group:
            rule = replace(recipe, **parts)
            chosen = rule.hypers()
            if "recipe" not in group:  # what the parts do not name stays the constructor's
                chosen = {name: chosen[name] for part in parts.values() for name in part.hypers()}
            group = {**chosen, **group, "recipe": rule}
        return group


def _check_recipe(recipe: Any) -> None:
    if not isinstance(recipe, Rule):
        raise TypeError(f"recipe must be a Rule such as those of steepest.recipes, got {recipe!r}")
