"""AdamSANIA: Adam without the root, invariant to the scale of every coordinate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from steepest.momentum import EMA
from steepest.optimizer import RuleOptimizer
from steepest.preconditioners import Diagonal
from steepest.rounding import Rounding
from steepest.rule import Rule
from steepest.steps import DualScaled, Polyak


class AdamSANIA(RuleOptimizer):
    """AdamSANIA: the averaged gradient over the averaged square itself, not its root.

    Formula:
        m <- b1 m + (1 - b1) G,  v <- b2 v + (1 - b2) G^2
        W <- (1 - lr weight_decay) W - lr (m / (1 - b1^t)) / (v / (1 - b2^t) + eps)
        With ``polyak`` (Adam-SQR): B = max(v, eps), f the closure's loss, q = sum of G^2 / B over the whole
        network, lambda = 1 - sqrt(1 - 2 f / q) if 2 f < q else 1, and W <- W - lr lambda G / B; no first
        moment and no bias correction. ``accumulate="sum"`` sums v instead (AdaGrad-SQR).

    Neighbours:
        Adam with power 1 instead of 1/2. MuAdamSANIA with the Frobenius instead of the spectral norm.

    From AdamW:
        There is no fixed ratio: the update is in units of 1/gradient, so lr must grow with the gradient's
        size. Begin at AdamW's lr times the typical size of a gradient entry, and sweep widely. With
        ``polyak`` the loss sets the length: lr is 1, or less with noisy losses.

    State:
        ``exp_avg`` and ``exp_avg_sq`` of the parameter's shape, and ``step``: 8 bytes per float32
        parameter. Half of that with ``polyak``, which keeps no average (and no ``step``).

    When not to use:
        When gradients shrink by orders of magnitude during training: steps grow as they do. It is made for
        badly scaled features, where W' = W/s entrywise must not change the path.

    Args:
        params: parameters, groups, or (name, parameter) pairs.
        lr: step size, in units of weight times gradient.
        betas: coefficients of the two averages, each in [0, 1). Default (0.9, 0.999).
        eps: added to the corrected squared average, never to the state, >= 0. Default 1e-8; with ``polyak``
            the least B, default 0.1.
        weight_decay: decoupled decay, >= 0. Default 0.
        polyak: take the step length from the loss; ``step`` then needs a closure. Default False.
        accumulate: ``"ema"`` averages squares with b2, ``"sum"`` sums them. Default ``"ema"``.
        maximize, fused, nonfinite, rounding, momentum_dtype: as in :class:`steepest.Adam`.

    Raises:
        ValueError, TypeError, RuntimeError, FloatingPointError: as in :class:`steepest.Adam`.

    Source:
        Abdukhakimov et al., SANIA: Polyak-type Optimization Framework Leads to Scale Invariant Stochastic
        Algorithms, arXiv 2312.17369; as a preconditioned norm: arXiv 2510.10777.

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = steepest.AdamSANIA(model.parameters(), lr=1e-4)
        >>> model(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        *,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float | None = None,
        weight_decay: float = 0.0,
        polyak: bool = False,
        accumulate: Literal["ema", "sum"] = "ema",
        maximize: bool = False,
        fused: bool | None = None,
        nonfinite: str | None = None,
        rounding: Rounding = "nearest",
        momentum_dtype: torch.dtype | None = None,
    ) -> None:
        options = {
            "lr": lr,
            "betas": betas,
            "eps": (0.1 if polyak else 1e-8) if eps is None else eps,
            "weight_decay": weight_decay,
            "polyak": polyak,
            "accumulate": accumulate,
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
        """Return the rule: Frobenius norm, D^2 = V, EMA momentum, dual-scaled or by the loss."""
        beta = None if group["accumulate"] == "sum" else 0.999
        if group["polyak"]:
            diagonal = Diagonal(power=1, beta=beta, eps_placement="floor", bias_correction=False)
            return Rule(preconditioner=diagonal, step=Polyak())
        return Rule(
            preconditioner=Diagonal(power=1, beta=beta),
            momentum=EMA(bias_correction=True),
            step=DualScaled(),
        )
