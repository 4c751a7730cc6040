"""The two plainest unit-norm methods: normalized SGD and SignSGD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from steepest.momentum import EMA, HeavyBall
from steepest.norms import Max
from steepest.optimizer import RuleOptimizer
from steepest.rounding import Rounding
from steepest.rule import Rule


class NormalizedSGD(RuleOptimizer):
    """Normalized SGD: every tensor moves by exactly lr in the Frobenius norm.

    Formula:
        M <- momentum M + G
        W <- (1 - lr weight_decay) W - lr M / |M|_F, with G + momentum M for M under Nesterov; 0/0 = 0

    Neighbours:
        ANDI without equilibration and energy floor. SignSGD with the Frobenius instead of the max norm.

    From AdamW:
        lr is the length of the step of a whole tensor, not of an entry: for a matrix of N entries,
        sqrt(N) times AdamW's lr moves it about as far.

    State:
        ``momentum_buffer``: 4 bytes per float32 parameter.

    When not to use:
        When layers need different step lengths and no per-group lr is set.

    Args:
        params: parameters, groups, or (name, parameter) pairs.
        lr: length of every tensor's step.
        momentum: heavy-ball coefficient in [0, 1). Default 0.
        nesterov: look ahead by one step. Default False.
        weight_decay: decoupled decay, >= 0. Default 0.
        maximize, fused, nonfinite, rounding, momentum_dtype: as in :class:`steepest.Adam`.

    Raises:
        ValueError, TypeError, RuntimeError, FloatingPointError: as in :class:`steepest.Adam`.

    Source:
        Hazan, Levy and Shalev-Shwartz, Beyond Convexity: Stochastic Quasi-Convex Optimization, arXiv
        1507.02030.

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = steepest.NormalizedSGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> model(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        *,
        momentum: float | Tensor = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        maximize: bool = False,
        fused: bool | None = None,
        nonfinite: str | None = None,
        rounding: Rounding = "nearest",
        momentum_dtype: torch.dtype | None = None,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
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
        """Return the rule: Frobenius norm, heavy-ball momentum, unit step."""
        return Rule(momentum=HeavyBall(nesterov=group["nesterov"]))


class SignSGD(RuleOptimizer):
    """SignSGD with momentum (Signum): every entry moves by exactly lr.

    Formula:
        M <- momentum M + (1 - momentum) G
        W <- (1 - lr weight_decay) W - lr sign(M), with sign(0) = 0

    Neighbours:
        Adam with b1 = b2 = 0 and eps = 0 is sign(G). SPlus in the weight's own basis.

    From AdamW:
        Begin at a third of AdamW's lr: Adam's entries are below lr on average, these are all at it.

    State:
        ``momentum_buffer``: 4 bytes per float32 parameter.

    When not to use:
        With very noisy gradients and small batches: the sign of noise is as long as the sign of signal.

    Args:
        params: parameters, groups, or (name, parameter) pairs.
        lr: size of every entry's step. Default 1e-2.
        momentum: coefficient of the average in [0, 1). Default 0.9.
        nesterov: look ahead by one step. Default False.
        weight_decay: decoupled decay, >= 0. Default 0.
        maximize, fused, nonfinite, rounding, momentum_dtype: as in :class:`steepest.Adam`.

    Raises:
        ValueError, TypeError, RuntimeError, FloatingPointError: as in :class:`steepest.Adam`.

    Source:
        Bernstein et al., signSGD: Compressed Optimisation for Non-Convex Problems, arXiv 1802.04434.

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = steepest.SignSGD(model.parameters(), lr=3e-4)
        >>> model(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        *,
        momentum: float | Tensor = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        maximize: bool = False,
        fused: bool | None = None,
        nonfinite: str | None = None,
        rounding: Rounding = "nearest",
        momentum_dtype: torch.dtype | None = None,
    ) -> None:
        options = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
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
        """Return the rule: max norm, EMA momentum, unit step."""
        return Rule(norm=Max(), momentum=EMA(nesterov=group["nesterov"], buffer="momentum_buffer"))
