"""MADGRAD: dual averaging with a cube root."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from steepest.dual_averaging import DualAveraging
from steepest.optimizer import RuleOptimizer
from steepest.preconditioners import Diagonal
from steepest.rounding import Rounding
from steepest.rule import Rule
from steepest.steps import DualScaled


class MADGRAD(RuleOptimizer):
    """MADGRAD: all gradients summed from the starting point, over the cube root of their squares.

    Formula:
        lam = (lr + eps) sqrt(t),  s <- s + lam G,  v <- v + lam G^2
        z = W_0 - s / (v^(1/3) + eps)
        W <- momentum W + (1 - momentum) z
        ``weight_decay`` is added to the gradient (L2), or with ``decoupled`` (lr + eps) weight_decay W is
        subtracted. With lr = 0 nothing moves.

    Neighbours:
        The framework's row of this name averages instead of summing and forgets the starting point:
        ``Steepest(params, lr, preconditioner=Diagonal(power=1/3), momentum=EMA(bias_correction=True))``, a
        different method. Adagrad is dual averaging with a square root and a growing sum.

    From AdamW:
        Begin at 0.01, the best of half decades on both embedded tasks; weight decay should be smaller than
        AdamW's, often 0.

    State:
        ``grad_sum``, ``grad_sum_sq`` and ``x0`` of the parameter's shape, and ``step``: 12 bytes per
        float32 parameter.

    When not to use:
        For fine-tuning from a checkpoint of another optimizer: it pulls back towards where it began.

    Args:
        params: parameters, groups, or (name, parameter) pairs.
        lr: step size. Default 1e-2.
        momentum: coefficient that keeps the old weight, in [0, 1). Default 0.9.
        weight_decay: >= 0. Default 0.
        eps: added to lr and to the cube root, >= 0. Default 1e-6.
        decoupled: decouple the decay. Default False.
        maximize, fused, nonfinite, rounding, momentum_dtype: as in :class:`steepest.Adam`.

    Raises:
        ValueError, TypeError, RuntimeError, FloatingPointError: as in :class:`steepest.Adam`.

    Source:
        Defazio and Jelassi, Adaptivity without Compromise: A Momentumized, Adaptive, Dual Averaged Gradient
        Method for Stochastic Optimization, arXiv 2101.11075.

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = steepest.MADGRAD(model.parameters(), lr=1e-2)
        >>> model(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        *,
        momentum: float | Tensor = 0.9,
        weight_decay: float = 0.0,
        eps: float = 1e-6,
        decoupled: bool = False,
        maximize: bool = False,
        fused: bool | None = None,
        nonfinite: str | None = None,
        rounding: Rounding = "nearest",
        momentum_dtype: torch.dtype | None = None,
    ) -> None:
        options = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "eps": eps,
            "decoupled": decoupled,
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
        """Return the dual-averaging rule; its geometry is the Frobenius norm with D^2 = V^1/3."""
        return DualAveraging(
            preconditioner=Diagonal(power=1 / 3, beta=None),
            step=DualScaled(),
            decay="decoupled" if group["decoupled"] else "l2",
        )
