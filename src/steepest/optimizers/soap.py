"""SOAP: Adam in the eigenvectors of Shampoo's factors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from steepest.momentum import EMA
from steepest.optimizer import RuleOptimizer
from steepest.preconditioners import Eigenbasis, ScaledDiagonal
from steepest.rounding import Rounding
from steepest.rule import Rule
from steepest.steps import DualScaled


class SOAP(RuleOptimizer):
    """SOAP: Adam, run in a slowly turning basis in which the gradient's rows and columns are uncorrelated.

    Formula:
        m <- b1 m + (1 - b1) G,  v <- b2 v + (1 - b2) (Q_L^T G Q_R)^2
        W <- W - lr sqrt(1 - b2^t)/(1 - b1^t) Q_L [(Q_L^T m Q_R) / (sqrt(v) + eps)] Q_R^T
        W <- (1 - lr weight_decay) W
        A <- b A + (1 - b) G G^T,  B <- b B + (1 - b) G^T G, with b = ``shampoo_beta`` or b2
        Every ``precondition_frequency`` steps the columns of Q_L, and v along them, are sorted by
        diag(Q_L^T A Q_L), largest first, and Q_L <- QR(A Q_L); Q_R alike with B.
        The first call moves nothing: it sets A, B and their eigenvectors Q_L, Q_R; t counts those after it.
        With ``include_current`` A, B and bases are updated before use, and no call is skipped.
        Tensors of more than two dimensions are read as (size(0), rest).
        Vectors and scalars, and groups with ``rule="aux"``, are trained by AdamW with ``aux``.

    Neighbours:
        Adam for Q_L = Q_R = I. Shampoo, if v were the outer product of the factors' eigenvalues. SPlus takes
        the sign in the same basis. KLSOAP has coupled statistics.

    From AdamW:
        The update has AdamW's size: begin at AdamW's lr, and try up to three times it.

    State:
        ``exp_avg`` and ``exp_avg_sq`` of the parameter's shape, both in the bases (m above is Q_L exp_avg
        Q_R^T); ``left``, ``left_basis`` (m, m) and ``right``, ``right_basis`` (n, n); ``unit``,
        ``left_unit``, ``right_unit``, ``step`` and ``fallbacks``: 8 mn + 8 m^2 + 8 n^2 + 24 bytes for a
        float32 m x n matrix. A side longer than ``max_precondition_dim`` has none of its four. ``fallbacks``
        counts the bases for which the first attempt failed.

    When not to use:
        For embeddings and output heads of large vocabulary, unless ``max_precondition_dim`` is below it.
        Where memory for the factors is short: Muon needs none. Where the same path is needed from different
        builds of LAPACK: for matrices that are not square, the eigenvectors of the first gradient's null
        space are whatever the eigensolver returns, and later steps depend on them.
        With ``refresh_timing="background"`` where statistics change much within a cycle, and where steps are
        shorter than refreshes or leave no core idle: the bases are late, and time is not saved but moved.

    Args:
        params: parameters, groups, or (name, parameter) pairs; a group may set ``rule="aux"`` or
            ``"matrix"``, and ``batch_dims`` for stacks of matrices in one tensor.
        lr: step size; the update's entries in the basis are of about this size. Default 3e-3.
        betas: coefficients of the two averages, each in [0, 1). Default (0.95, 0.95).
        shampoo_beta: coefficient of the factors in [0, 1); None is the second beta. Default None.
        eps: added to the root of v, >= 0. Default 1e-8.
        weight_decay: decoupled decay, after the step, >= 0. Default 0.01.
        precondition_frequency: bases are refreshed whenever this divides t, >= 1. Default 10.
        refresh_timing: ``"together"``: all parameters are refreshed in the same step, as published.
            ``"staggered"``: each at a step of the cycle of its own, by the cost of its sides, which evens out
            the time of steps; the one with the longest sides stays where it was. ``"background"``: all in the
            same step, with the bases that a thread (on CUDA, a stream) has computed meanwhile from the
            statistics as they were at the refresh before: one cycle late, whatever the thread's pace, and
            4 m^2 + 4 n^2 bytes more of state (``left_pending``, ``right_pending``), and as much again under
            way. Default ``"together"``.
        max_precondition_dim: a longer side is not rotated, >= 1. Default 10000.
        include_current: let the current gradient into the statistics before they are used. Default False.
        aux: hyperparameters of the auxiliary AdamW: lr (1e-3), betas (0.9, 0.999), eps (1e-8),
            weight_decay (0).
        maximize, fused, nonfinite, rounding, momentum_dtype: as in :class:`steepest.Adam`.

    Raises:
        ValueError, TypeError, RuntimeError, FloatingPointError: as in :class:`steepest.Adam`.

    Source:
        Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam, arXiv 2409.11321.

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> optimizer = steepest.SOAP(model.parameters(), lr=3e-3, aux=dict(lr=1e-3))
        >>> for _ in range(2):
        ...     model(torch.ones(1, 16)).sum().backward()
        ...     optimizer.step()
        >>> int(optimizer.state[model[0].weight]["fallbacks"])
        0
    """

    hybrid = True

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 3e-3,
        *,
        betas: tuple[float | Tensor, float | Tensor] = (0.95, 0.95),
        shampoo_beta: float | Tensor | None = None,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        precondition_frequency: int = 10,
        refresh_timing: str = "together",
        max_precondition_dim: int = 10000,
        include_current: bool = False,
        aux: Mapping[str, Any] | None = None,
        maximize: bool = False,
        fused: bool | None = None,
        nonfinite: str | None = None,
        rounding: Rounding = "nearest",
        momentum_dtype: torch.dtype | None = None,
    ) -> None:
        options = {
            "lr": lr,
            "betas": betas,
            "shampoo_beta": shampoo_beta,
            "eps": eps,
            "weight_decay": weight_decay,
            "precondition_frequency": precondition_frequency,
            "refresh_timing": refresh_timing,
            "max_precondition_dim": max_precondition_dim,
            "include_current": include_current,
        }
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
        """Return the rule: Frobenius norm, D^2 = V^1/2 in the eigenbasis, EMA momentum, dual-scaled."""
        return Rule(
            preconditioner=Eigenbasis(
                ScaledDiagonal(0.5, eps_placement="uncorrected"),
                beta=None,
                frequency=group["precondition_frequency"],
                refresh_timing=group["refresh_timing"],
                max_dim=group["max_precondition_dim"],
                start="current" if group["include_current"] else "skip",
            ),
            momentum=EMA(bias_correction=True),
            step=DualScaled(),
            decay="after",
        )
