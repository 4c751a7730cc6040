"""Adam and AdamW: the Frobenius norm in coordinates set by past squared gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from steepest.auxiliary import ADAMW
from steepest.optimizer import RuleOptimizer
from steepest.rounding import Rounding
from steepest.rule import Rule


class Adam(RuleOptimizer):
    """Adam, exactly as ``torch.optim.Adam``: gradient averages over the root of squared averages.

    Formula:
        m <- b1 m + (1 - b1) G,  v <- b2 v + (1 - b2) G^2
        W <- W - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
        ``weight_decay`` is added to the gradient (L2), which adaptive scaling then weakens: see AdamW.

    Neighbours:
        AdamW with L2 decay. AdamSANIA without the root. MuAdam with the Frobenius instead of the
        spectral norm.

    From AdamW:
        The same lr.

    State:
        ``exp_avg`` and ``exp_avg_sq`` of the parameter's shape, and ``step``: 8 bytes per float32
        parameter.

    When not to use:
        With weight decay, use AdamW. For matrices of transformers Muon usually needs fewer steps.

    Args:
        params: parameters, groups, or (name, parameter) pairs.
        lr: step size; the update's entries are of about this size. Default 1e-3.
        betas: coefficients of the two averages, each in [0, 1). Default (0.9, 0.999).
        eps: added to the root of the squared average, >= 0. Default 1e-8.
        weight_decay: L2 coefficient, >= 0. Default 0.
        maximize: ascend instead. Default False.
        fused: None picks the fastest path (torch's fused kernel where it applies), True demands a fused
            path, False takes the reference path.
        nonfinite: ``"raise"``, ``"skip"`` the step or ``"propagate"`` on non-finite gradients; None raises
            on the CPU and propagates on devices, where looking would cost a synchronisation.
        rounding: how bfloat16 and float16 weights take steps smaller than their last bit: ``"nearest"``
            (default) loses them, ``"stochastic"`` (bfloat16 only) rounds at random, right on average and
            repeatable, ``"kahan"`` keeps what is cut off in a ``compensation`` of the weight's dtype.
        momentum_dtype: dtype of the momentum buffers of float32 and narrower parameters; None is float32,
            ``torch.bfloat16`` halves them. Coefficients above 0.99 then need ``rounding="stochastic"``.

    Raises:
        ValueError, TypeError: for values out of range and unknown arguments.
        RuntimeError: for sparse or complex gradients.
        FloatingPointError: for non-finite gradients under ``nonfinite="raise"``.

    Source:
        Kingma and Ba, Adam: A Method for Stochastic Optimization, arXiv 1412.6980.

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = steepest.Adam(model.parameters(), lr=1e-3)
        >>> model(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        maximize: bool = False,
        fused: bool | None = None,
        nonfinite: str | None = None,
        rounding: Rounding = "nearest",
        momentum_dtype: torch.dtype | None = None,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
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
        """Return AdamW's rule with L2 decay."""
        return replace(ADAMW, decay="l2")


class AdamW(Adam):
    """AdamW, exactly as ``torch.optim.AdamW``: Adam whose decay shrinks the weight directly.

    Formula:
        m <- b1 m + (1 - b1) G,  v <- b2 v + (1 - b2) G^2
        W <- (1 - lr weight_decay) W - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    Neighbours:
        Adam with decoupled decay.

    From AdamW:
        The same lr.

    State:
        ``exp_avg`` and ``exp_avg_sq`` of the parameter's shape, and ``step``: 8 bytes per float32
        parameter. Checkpoints of ``torch.optim.AdamW`` load.

    When not to use:
        For the matrices of a network, once Muon or ANDI has been tried and is better on your task.

    Args:
        params: parameters, groups, or (name, parameter) pairs.
        lr: step size; the update's entries are of about this size. Default 1e-3.
        betas: coefficients of the two averages, each in [0, 1). Default (0.9, 0.999).
        eps: added to the root of the squared average, >= 0. Default 1e-8.
        weight_decay: decoupled decay, >= 0. Default 1e-2.
        maximize, fused, nonfinite, rounding, momentum_dtype: as in :class:`Adam`.

    Raises:
        ValueError, TypeError, RuntimeError, FloatingPointError: as in :class:`Adam`.

    Source:
        Loshchilov and Hutter, Decoupled Weight Decay Regularization, arXiv 1711.05101.

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = steepest.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
        >>> model(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        maximize: bool = False,
        fused: bool | None = None,
        nonfinite: str | None = None,
        rounding: Rounding = "nearest",
        momentum_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            maximize=maximize,
            fused=fused,
            nonfinite=nonfinite,
            rounding=rounding,
            momentum_dtype=momentum_dtype,
        )

    @classmethod
    def recipe(cls, group: Mapping[str, Any]) -> Rule:
        """Return AdamW's rule."""
        return ADAMW
