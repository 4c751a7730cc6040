"""Shampoo and one-sided Shampoo: the Frobenius norm in coordinates set by past outer products."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from steepest.hypers import SUM_OR_AVERAGE
from steepest.momentum import EMA
from steepest.optimizer import RuleOptimizer
from steepest.preconditioners import Grafted, Identity, Kronecker, Preconditioner, ScaledDiagonal
from steepest.rounding import Rounding
from steepest.rule import Rule
from steepest.steps import DualScaled

GRAFTS: dict[str | None, Preconditioner | None] = {
    None: None,
    "sgd": Identity(),
    "adagrad": ScaledDiagonal(0.5, beta=None, eps=1e-8),
    "adam": ScaledDiagonal(0.5, beta=0.999, eps=1e-8),
    "rmsprop": ScaledDiagonal(0.5, beta=0.999, eps=1e-8, bias_correction=False),
}
"""Whose length a step takes, by name."""


class Shampoo(RuleOptimizer):
    """Shampoo: gradients divided by the fourth roots of their row and column second moments.

    Formula:
        m <- b1 m + (1 - b1) G
        A <- A + G G^T,  B <- B + G^T G for b2 = 1; else averages with b2, divided by 1 - b2^t
        P = (A + eps I)^(-1/4) m / (1 - b1^t) (B + eps I)^(-1/4)
        With grafting: P <- P |Q| / (|P| + 1e-16), Q the step of the named method for the same m
        W <- (1 - lr weight_decay) W - lr P
        Vectors and scalars have one side: P = (A + eps I)^(-1/2) m / (1 - b1^t), A of their outer products.
        Tensors of more than two dimensions are read as (size(0), rest).
        Groups with ``rule="aux"`` are trained by AdamW with ``aux``.

    Neighbours:
        Adagrad for 1 x 1 and for diagonal gradients. OneSidedShampoo with one root of a square instead of two
        fourth roots. Muon is its memoryless case: for a single gradient P is the polar factor. SOAP is Adam
        in the eigenvectors of A and B.

    From AdamW:
        With ``grafting="adam"`` the update is as long as AdamW's: keep AdamW's lr. Without grafting and with
        b2 = 1 steps shrink like 1/sqrt(t) as Adagrad's: begin at ten times AdamW's lr. With b2 < 1 the
        update has singular values near 1: begin at Muon's lr times sqrt(max(1, m/n)).

    State:
        ``exp_avg`` of the parameter's shape; ``left``, ``left_root`` (m, m) and ``right``, ``right_root``
        (n, n); ``left_unit``, ``right_unit``, ``step`` and ``fallbacks``: 4 mn + 8 m^2 + 8 n^2 + 20 bytes
        for a float32 m x n matrix up to ``max_precondition_dim``, and 4 mn + 4 more with the grafts adagrad,
        adam and rmsprop. Longer sides are cut into blocks: p blocks of r x c hold p (8 r^2 + 8 c^2 + 8)
        bytes. ``fallbacks`` counts the roots for which the first eigendecomposition failed.

    When not to use:
        For embeddings and output heads of large vocabulary: give them a group with ``rule="aux"``. Where
        memory for the factors is short: Muon needs none.
        With ``precondition_frequency`` above 1 raise eps to about 1e-4 of the squared gradient norm, or use
        grafting: a root of the first, rank-deficient statistics magnifies what later gradients bring into
        its null space until it is refreshed.
        With ``refresh_timing="background"`` where statistics change much within a cycle, and where steps are
        shorter than refreshes or leave no core idle: the roots are late, and time is not saved but moved.

    Args:
        params: parameters, groups, or (name, parameter) pairs; a group may set ``rule="aux"``, and
            ``batch_dims`` for stacks of matrices in one tensor.
        lr: step size. Default 1e-2.
        betas: coefficients of the momentum, in [0, 1), and of the factors, in [0, 1]; 1 is a sum. Default
            (0.9, 1.0).
        eps: added to the eigenvalues of both factors, in units of squared gradients, >= 0. Default 1e-12.
        weight_decay: decoupled decay, >= 0. Default 0.
        precondition_frequency: roots are taken at the first step and whenever this divides the count of
            steps, >= 1. Default 1.
        refresh_timing: ``"together"``: all parameters are refreshed in the same step, as published.
            ``"staggered"``: each at a step of the cycle of its own, by the cost of its sides, which evens out
            the time of steps; the one with the longest sides stays where it was. ``"background"``: all in the
            same step, with the roots that a thread (on CUDA, a stream) has computed meanwhile from the
            statistics as they were at the refresh before: one cycle late, whatever the thread's pace, and
            half as much state again for the factors (``left_pending``, ``right_pending`` and their units),
            and as much under way. Default ``"together"``.
        grafting: None, ``"sgd"`` (the momentum), ``"adagrad"``, ``"adam"`` or ``"rmsprop"`` (their
            coefficient 0.999 and eps 1e-8). Default None.
        max_precondition_dim: longer sides are cut into blocks of this length, each preconditioned by itself,
            the last one padded with zeros, >= 1. Default 1024.
        aux: hyperparameters of the auxiliary AdamW: lr (1e-3), betas (0.9, 0.999), eps (1e-8),
            weight_decay (0).
        maximize, fused, nonfinite, rounding, momentum_dtype: as in :class:`steepest.Adam`.

    Raises:
        ValueError, TypeError, RuntimeError, FloatingPointError: as in :class:`steepest.Adam`.

    Source:
        Gupta, Koren and Singer, Shampoo: Preconditioned Stochastic Tensor Optimization, arXiv 1802.09568;
        grafting and blocks: Anil et al., Scalable Second Order Optimization for Deep Learning, arXiv
        2002.09018.

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> optimizer = steepest.Shampoo(model.parameters(), lr=1e-3, grafting="adam")
        >>> model(torch.ones(1, 16)).sum().backward()
        >>> optimizer.step()
        >>> int(optimizer.state[model[0].weight]["fallbacks"])
        0
    """

    hybrid = True
    checks = SUM_OR_AVERAGE

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        *,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 1.0),
        eps: float = 1e-12,
        weight_decay: float = 0.0,
        precondition_frequency: int = 1,
        refresh_timing: str = "together",
        grafting: str | None = None,
        max_precondition_dim: int = 1024,
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
            "eps": eps,
            "weight_decay": weight_decay,
            "precondition_frequency": precondition_frequency,
            "refresh_timing": refresh_timing,
            "grafting": grafting,
            "max_precondition_dim": max_precondition_dim,
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
        """Return the rule: Frobenius norm, both roots, EMA momentum, dual-scaled."""
        return _shampoo(group, "both")


class OneSidedShampoo(RuleOptimizer):
    """One-sided Shampoo: gradients divided by the square root of their row or column second moments.

    Formula:
        m <- b1 m + (1 - b1) G
        A <- A + G G^T (left) or G^T G (right) for b2 = 1; else an average with b2, divided by 1 - b2^t
        P = (A + eps I)^(-1/2) m / (1 - b1^t), or m / (1 - b1^t) (A + eps I)^(-1/2) on the right
        With grafting: P <- P |Q| / (|P| + 1e-16), Q the step of the named method for the same m
        W <- (1 - lr weight_decay) W - lr P
        Tensors of more than two dimensions are read as (size(0), rest).
        Vectors and scalars, and groups with ``rule="aux"``, are trained by AdamW with ``aux``.

    Neighbours:
        Shampoo with one side and twice its exponent: full-matrix Adagrad whose statistic is shared by all
        columns. Muon at the first step, where P is the polar factor of a gradient of full rank on that side.

    From AdamW:
        As for :class:`steepest.Shampoo`.

    State:
        ``exp_avg`` of the parameter's shape; ``left``, ``left_root`` (m, m) or ``right``, ``right_root`` (n,
        n); a unit, ``step`` and ``fallbacks``: 4 mn + 8 d^2 + 16 bytes for a float32 matrix with d the
        side's length up to ``max_precondition_dim``; 4 mn + 4 more with the grafts adagrad, adam and rmsprop.
        Longer sides are cut into p blocks of length r, which hold p (8 r^2 + 4) bytes.

    When not to use:
        For embeddings and output heads of large vocabulary: give them a group with ``rule="aux"``.
        With ``precondition_frequency`` above 1 raise eps to about 1e-4 of the squared gradient norm: a root
        of the first, rank-deficient statistics magnifies what later gradients bring into its null space until
        it is refreshed.

    Args:
        params: parameters, groups, or (name, parameter) pairs; a group may set ``rule="aux"`` or
            ``"matrix"``, and ``batch_dims`` for stacks of matrices in one tensor.
        lr: step size. Default 1e-2.
        betas: coefficients of the momentum, in [0, 1), and of the factor, in [0, 1]; 1 is a sum. Default
            (0.9, 1.0).
        eps, weight_decay, precondition_frequency, refresh_timing, grafting, max_precondition_dim, aux: as in
            :class:`steepest.Shampoo`.
        side: ``"left"``, ``"right"`` or ``"smaller"``, that of the shorter dimension. Default ``"left"``.
        maximize, fused, nonfinite, rounding, momentum_dtype: as in :class:`steepest.Adam`.

    Raises:
        ValueError, TypeError, RuntimeError, FloatingPointError: as in :class:`steepest.Adam`.

    Source:
        An et al., ASGO: Adaptive Structured Gradient Optimization, arXiv 2503.20762; Xie et al., Structured
        Preconditioners in Adaptive Optimization: A Unified Analysis, arXiv 2503.10537.

    Example:
        >>> import torch, steepest
        >>> layer = torch.nn.Linear(6, 4, bias=False)
        >>> optimizer = steepest.OneSidedShampoo(layer.parameters(), lr=1.0, side="smaller")
        >>> before = layer.weight.detach().clone()
        >>> layer.weight.grad = torch.randn(4, 6)
        >>> optimizer.step()
        >>> step = before - layer.weight.detach()
        >>> torch.allclose(step @ step.T, torch.eye(4), atol=1e-3)
        True
    """

    hybrid = True
    checks = SUM_OR_AVERAGE

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        *,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 1.0),
        eps: float = 1e-12,
        weight_decay: float = 0.0,
        precondition_frequency: int = 1,
        refresh_timing: str = "together",
        grafting: str | None = None,
        max_precondition_dim: int = 1024,
        side: str = "left",
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
            "eps": eps,
            "weight_decay": weight_decay,
            "precondition_frequency": precondition_frequency,
            "refresh_timing": refresh_timing,
            "grafting": grafting,
            "max_precondition_dim": max_precondition_dim,
            "side": side,
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
        """Return the rule: Frobenius norm, one root, EMA momentum, dual-scaled."""
        side = group["side"]
        if side not in ("left", "right", "smaller"):
            raise ValueError(f"side must be one of 'left', 'right', 'smaller', got {side!r}")
        return _shampoo(group, side)


def _shampoo(group: Mapping[str, Any], sides: Any) -> Rule:
    grafting, beta = group["grafting"], group["betas"][1]
    if grafting not in GRAFTS:
        raise ValueError(f"grafting must be one of {', '.join(map(repr, GRAFTS))}, got {grafting!r}")
    kronecker = Kronecker(
        beta=None if float(beta) == 1 else 0.999,
        eps=1e-12,
        sides=sides,
        frequency=group["precondition_frequency"],
        refresh_timing=group["refresh_timing"],
        max_dim=group["max_precondition_dim"],
    )
    graft = GRAFTS[grafting]
    return Rule(
        preconditioner=kronecker if graft is None else Grafted(kronecker, graft),
        momentum=EMA(bias_correction=True),
        step=DualScaled(),
    )
