"""Adagrad: coordinates set by the sum of all squared gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from steepest.optimizer import RuleOptimizer
from steepest.preconditioners import Diagonal
from steepest.rounding import Rounding
from steepest.rule import Rule
from steepest.steps import DualScaled


class Adagrad(RuleOptimizer):
    """Adagrad, as ``torch.optim.Adagrad``: the gradient over the root of the sum of its squares.

    Formula:
        v <- v + G^2
        W <- W - lr G / (sqrt(v) + eps); ``weight_decay`` is added to the gradient (L2)

    Neighbours:
        Adam with a sum for the average and without momentum. Shampoo of 1 x 1 matrices.

    From AdamW:
        About ten times AdamW's lr: the denominator only grows, so steps shrink as 1/sqrt(t) by themselves.

    State:
        ``sum`` of the parameter's shape: 4 bytes per float32 parameter.

    When not to use:
        For long training of deep networks, where the step dies away before the loss has; made for convex
        problems and sparse features.

    Args:
        params: parameters, groups, or (name, parameter) pairs.
        lr: step size of the first step's entries. Default 1e-2. For torch's ``lr_decay`` use a scheduler.
        initial_accumulator_value: what the sum starts from, >= 0. Default 0.
        eps: added to the root of the sum, >= 0. Default 1e-10.
        weight_decay: L2 coefficient, >= 0. Default 0.
        maximize, fused, nonfinite, rounding, momentum_dtype: as in :class:`steepest.Adam`.

    Raises:
        ValueError, TypeError, RuntimeError, FloatingPointError: as in :class:`steepest.Adam`.

    Source:
        Duchi, Hazan and Singer, Adaptive Subgradient Methods, JMLR 12 (2011).

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = steepest.Adagrad(model.parameters(), lr=0.05)
        >>> model(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        *,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        maximize: bool = False,
        fused: bool | None = None,
        nonfinite: str | None = None,
        rounding: Rounding = "nearest",
        momentum_dtype: torch.dtype | None = None,
    ) -> None:
        options = {
            "lr": lr,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(
            params,
            options,
            maximize=maximize,
            fused=fused,
            nonfinite=nonfinite,
            rounding=rounding,
            momentum_dtype=momentum_dtype,
        )

    @classmethod
    def recipe(cls, group: Mapping[str, Any]) -> Rule:
        """Return the rule: Frobenius norm, D^2 = (sum of squares)^1/2, no momentum, dual-scaled."""
        start = group["initial_accumulator_value"]
        return Rule(preconditioner=Diagonal(beta=None, initial=start), step=DualScaled(), decay="l2")
