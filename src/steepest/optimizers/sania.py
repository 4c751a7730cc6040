"""AdamSANIA: Adam without the root, invariant to the scale of every coordinate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from steepest.momentum import EMA
from steepest.optimizer import RuleOptimizer
from steepest.preconditioners import Diagonal
from steepest.rule import Rule
from steepest.steps import DualScaled


class AdamSANIA(RuleOptimizer):
    """AdamSANIA: the averaged gradient over the averaged square itself, not its root.

    Formula:
        m <- b1 m + (1 - b1) G,  v <- b2 v + (1 - b2) G^2
        W <- (1 - lr weight_decay) W - lr (m / (1 - b1^t)) / (v / (1 - b2^t) + eps)

    Neighbours:
        Adam with power 1 instead of 1/2. MuAdamSANIA with the Frobenius instead of the spectral norm.

    From AdamW:
        There is no fixed ratio: the update is in units of 1/gradient, so lr must grow with the gradient's
        size. Begin at AdamW's lr times the typical size of a gradient entry, and sweep widely.

    State:
        ``exp_avg`` and ``exp_avg_sq`` of the parameter's shape, and ``step``: 8 bytes per float32
        parameter.

    When not to use:
        When gradients shrink by orders of magnitude during training: steps grow as they do. It is made for
        badly scaled features, where W' = W/s entrywise must not change the path.

    Args:
        params: parameters, groups, or (name, parameter) pairs.
        lr: step size, in units of weight times gradient.
        betas: coefficients of the two averages, each in [0, 1). Default (0.9, 0.999).
        eps: added to the corrected squared average, never to the state, >= 0. Default 1e-8.
        weight_decay: decoupled decay, >= 0. Default 0.
        maximize, fused, nonfinite: as in :class:`steepest.Adam`.

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
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        maximize: bool = False,
        fused: bool | None = None,
        nonfinite: str | None = None,
    ) -> None:
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, options, maximize=maximize, fused=fused, nonfinite=nonfinite)

    @classmethod
    def recipe(cls, group: Mapping[str, Any]) -> Rule:
        """Return the rule: Frobenius norm, D^2 = V, EMA momentum, dual-scaled."""
        return Rule(preconditioner=Diagonal(power=1), momentum=EMA(bias_correction=True), step=DualScaled())
