"""KL-Shampoo and KL-SOAP: factors in which each side is whitened by the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from steepest.momentum import EMA
from steepest.optimizer import RuleOptimizer
from steepest.preconditioners import KLEigenbasis, Preconditioner, ScaledDiagonal
from steepest.rounding import Rounding
from steepest.rule import Rule
from steepest.steps import DualScaled


class KLShampoo(RuleOptimizer):
    """KL-Shampoo: the Kronecker covariance closest to the gradient's in Kullback-Leibler divergence.

    Formula:
        m <- b1 m + (1 - b1) G, without bias correction
        U = Q_a [(Q_a^T m Q_b) * E / (1 + eps E)] Q_b^T,  E_ij = lam_a,i^(-1/2) lam_b,j^(-1/2)
        W <- (1 - lr weight_decay) (W - lr U)
        S_a <- b S_a + (1 - b)/n G S_b^-1 G^T,  S_b^-1 = Q_b diag(1/lam_b) Q_b^T, and S_b alike with 1/m
        lam_a <- b lam_a + (1 - b) mean_j (Q_a^T G Q_b)_ij^2 / lam_b,j, and lam_b alike
        No lam^(-1/2) exceeds max(10, min(d, 4000)). b is ``shampoo_beta`` or b2.
        Every ``precondition_frequency`` steps Q_a <- QR(S_a Q_a), Q_b <- QR(S_b Q_b).
        The first call moves nothing: S_a = (1 - b) G G^T / n, S_b = (1 - b) G^T G / m, Q their eigenvectors,
        all lam = 0.1.
        Tensors of more than two dimensions are read as (size(0), rest).
        Vectors and scalars, and groups with ``rule="aux"``, are trained by AdamW with ``aux``.

    Neighbours:
        Shampoo with square instead of fourth roots of factors that share the gradient's size between them.
        With fixed bases it is a diagonal method. KLSOAP has Adam's second moment in place of lam_a lam_b.

    From AdamW:
        The update has AdamW's typical size once lam has settled: begin at AdamW's lr. The first steps see
        lam = 0.1 and are as long as ten times the gradient, so warm up where gradients have entries above
        0.1.

    State:
        ``exp_avg`` of the parameter's shape, in the bases (m above is Q_a exp_avg Q_b^T); ``left``,
        ``left_basis`` (m, m), ``right``, ``right_basis`` (n, n); ``left_values`` (m) and ``right_values`` (n)
        in float64; ``left_unit``, ``right_unit``, ``step`` and ``fallbacks``: 4 mn + 8 m^2 + 8 n^2 + 8 m + 8
        n + 20 bytes for a float32 m x n matrix. ``fallbacks`` counts the bases for which the first attempt
        failed.

    When not to use:
        For embeddings and output heads of large vocabulary: give them a group with ``rule="aux"``. Where the
        same path is needed from different builds of LAPACK, or refreshes in the background: see
        :class:`steepest.SOAP`.

    Args:
        params: parameters, groups, or (name, parameter) pairs; a group may set ``rule="aux"`` or
            ``"matrix"``, and ``batch_dims`` for stacks of matrices in one tensor.
        lr: step size; the update's entries in the basis are of about this size. Default 1e-4.
        betas: coefficients of the momentum and of the statistics, each in [0, 1). Default (0.9, 0.98).
        shampoo_beta: coefficient of the statistics in [0, 1); None is the second beta. Default None.
        eps: damping, >= 0. Default 1e-8.
        weight_decay: decoupled decay, after the step, >= 0. Default 0.01.
        precondition_frequency: bases are refreshed whenever this divides the count of calls that move, >= 1.
            Default 10.
        refresh_timing: ``"together"``: all parameters are refreshed in the same step, as published.
            ``"staggered"``: each at a step of the cycle of its own, by the cost of its sides, which evens out
            the time of steps; the one with the longest sides stays where it was. ``"background"``: all in the
            same step, with the bases that a thread (on CUDA, a stream) has computed meanwhile from the
            statistics as they were at the refresh before: one cycle late, whatever the thread's pace, and
            4 m^2 + 4 n^2 bytes more of state (``left_pending``, ``right_pending``), and as much again under
            way. Default ``"together"``.
        aux: hyperparameters of the auxiliary AdamW: lr (1e-3), betas (0.9, 0.999), eps (1e-8),
            weight_decay (0).
        maximize, fused, nonfinite, rounding, momentum_dtype: as in :class:`steepest.Adam`.

    Raises:
        ValueError, TypeError, RuntimeError, FloatingPointError: as in :class:`steepest.Adam`.

    Source:
        Lin et al., Understanding and Improving Shampoo and SOAP via Kullback-Leibler Minimization,
        arXiv 2509.03378.

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> optimizer = steepest.KLShampoo(model.parameters(), lr=1e-3, aux=dict(lr=1e-3))
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
        lr: float | Tensor = 1e-4,
        *,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.98),
        shampoo_beta: float | Tensor | None = None,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        precondition_frequency: int = 10,
        refresh_timing: str = "together",
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
        """Return the rule: Frobenius norm, D^2 = sqrt(lam_a lam_b) in the KL basis, EMA momentum."""
        return _kl(group, None)


class KLSOAP(KLShampoo):
    """KL-SOAP: Adam's direction in the bases of KL-Shampoo.

    Formula:
        m <- b1 m + (1 - b1) G,  v <- b v + (1 - b) (Q_a^T G Q_b)^2, without bias correction
        U = Q_a [(Q_a^T m Q_b) / (sqrt(v) + eps)] Q_b^T
        W <- (1 - lr weight_decay) (W - lr U)
        Q_a, Q_b and the first call, which moves nothing, as in :class:`steepest.KLShampoo`.
        v stays as it is when the bases are refreshed. b is ``shampoo_beta`` or b2.
        Vectors and scalars, and groups with ``rule="aux"``, are trained by AdamW with ``aux``.

    Neighbours:
        SOAP with coupled statistics and no bias correction. KLShampoo with v in place of lam_a lam_b. Adam
        without bias correction where Q_a = Q_b = I.

    From AdamW:
        The update has AdamW's size: begin at AdamW's lr. Without bias correction the first updates are up to
        (1 - b1)/sqrt(1 - b) of a later one (0.7 at the defaults).

    State:
        KLShampoo's, ``exp_avg_sq`` of the parameter's shape and ``unit``: 8 mn + 8 m^2 + 8 n^2 + 8 m + 8 n +
        24 bytes for a float32 m x n matrix.

    When not to use:
        For embeddings and output heads of large vocabulary: give them a group with ``rule="aux"``. Where the
        same path is needed from different builds of LAPACK, or refreshes in the background: see
        :class:`steepest.SOAP`.

    Args:
        params: parameters, groups, or (name, parameter) pairs; a group may set ``rule="aux"`` or
            ``"matrix"``, and ``batch_dims`` for stacks of matrices in one tensor.
        lr: step size; the update's entries in the basis are of about this size. Default 1e-4.
        betas: coefficients of the momentum, and of v and the statistics, each in [0, 1). Default (0.9, 0.98).
        shampoo_beta: coefficient of v and the statistics in [0, 1); None is the second beta. Default None.
        eps: added to the root of v, >= 0. Default 1e-8.
        weight_decay, precondition_frequency, refresh_timing, aux: as in :class:`steepest.KLShampoo`.
        maximize, fused, nonfinite, rounding, momentum_dtype: as in :class:`steepest.Adam`.

    Raises:
        ValueError, TypeError, RuntimeError, FloatingPointError: as in :class:`steepest.Adam`.

    Source:
        Lin et al., Understanding and Improving Shampoo and SOAP via Kullback-Leibler Minimization,
        arXiv 2509.03378.

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> optimizer = steepest.KLSOAP(model.parameters(), lr=1e-3, aux=dict(lr=1e-3))
        >>> for _ in range(2):
        ...     model(torch.ones(1, 16)).sum().backward()
        ...     optimizer.step()
        >>> sorted(optimizer.state[model[0].weight])[:2]
        ['exp_avg', 'exp_avg_sq']
    """

    @classmethod
    def recipe(cls, group: Mapping[str, Any]) -> Rule:
        """Return the rule: Frobenius norm, D^2 = V^1/2 in the KL basis, EMA momentum, dual-scaled."""
        return _kl(group, ScaledDiagonal(0.5, bias_correction=False))


def _kl(group: Mapping[str, Any], inside: Preconditioner | None) -> Rule:
    return Rule(
        preconditioner=KLEigenbasis(
            inside, frequency=group["precondition_frequency"], refresh_timing=group["refresh_timing"]
        ),
        momentum=EMA(),
        step=DualScaled(),
        decay="after",
    )
