"""SPlus: the sign in the eigenvectors of Shampoo's factors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from steepest.evaluation import AveragingOptimizer
from steepest.momentum import EMA
from steepest.norms import Max
from steepest.preconditioners import Eigenbasis
from steepest.rounding import Rounding
from steepest.rule import Rule
from steepest.steps import MeanSide


class SPlus(AveragingOptimizer):
    """SPlus: every coordinate in the factors' eigenbasis moves by the same amount; weights are averaged.

    Formula:
        m <- b1 m + (1 - b1) G
        U = Q_L sign(Q_L^T m Q_R) Q_R^T,  e = lr 2/(rows + columns)
        W <- (1 - e weight_decay) (W - e U)
        A <- b2 A + (1 - b2) G G^T,  B <- b2 B + (1 - b2) G^T G
        After the first step, and whenever ``precondition_frequency`` divides the count of steps, Q_L and Q_R
        become the eigenvectors of A and B; before, they are the identity: the first step is plain sign.
        Vectors and scalars: U = sign(m), e = 0.001 lr.
        Tensors of more than two dimensions are read as (size(0), rest).
        Weights are averaged with coefficient ``ema``, bias-corrected; :meth:`eval` puts the averages into the
        parameters and :meth:`train` takes them out again.

    Neighbours:
        SignSGD for Q_L = Q_R = I. SOAP divides by the root of a second moment where this takes the sign.

    From AdamW:
        lr is divided by the mean side of each matrix: for sides of d, an lr of d times AdamW's moves entries
        about as far. The default of 0.1 is meant for widths of a few hundred; it carries over between widths.

    State:
        ``exp_avg`` and ``average`` of the parameter's shape;
        ``left``, ``left_basis`` (m, m) and ``right``, ``right_basis`` (n, n); ``left_unit``, ``right_unit``,
        ``step`` and ``fallbacks``: 8 mn + 8 m^2 + 8 n^2 + 20 bytes for a float32 m x n matrix, 8 n + 4 for a
        vector. ``fallbacks`` counts the bases for which the first attempt failed.

    When not to use:
        Without calls of :meth:`eval` before evaluation and :meth:`train` after it: the training weights are
        noisier than with a decaying step. For embeddings of large vocabulary, whose factor would not fit:
        give them to another optimizer. Where the same path is needed from different builds of LAPACK, or
        refreshes in the background: see :class:`steepest.SOAP`.

    Args:
        params: parameters, groups, or (name, parameter) pairs; a group may set ``batch_dims`` for stacks of
            matrices in one tensor.
        lr: step size times the mean side of the matrix. Default 0.1.
        betas: coefficients of the momentum and of the factors, each in [0, 1). Default (0.9, 0.999).
        ema: coefficient of the average of weights in [0, 1). Default 0.999.
        weight_decay: decoupled decay, after the step, with e as its rate, >= 0. Default 0.01.
        precondition_frequency: how often bases are taken anew, >= 1. Default 100.
        refresh_timing: ``"together"``: all parameters are refreshed in the same step, as published.
            ``"staggered"``: each at a step of the cycle of its own, by the cost of its sides, which evens out
            the time of steps; the one with the longest sides stays where it was. ``"background"``: all in the
            same step, with the bases that a thread (on CUDA, a stream) has computed meanwhile from the
            statistics as they were at the refresh before: one cycle late, whatever the thread's pace, and
            4 m^2 + 4 n^2 bytes more of state (``left_pending``, ``right_pending``), and as much again under
            way. Default ``"together"``.
        maximize, fused, nonfinite, rounding, momentum_dtype: as in :class:`steepest.Adam`.

    Raises:
        ValueError, TypeError, FloatingPointError: as in :class:`steepest.Adam`.
        RuntimeError: as there, and for :meth:`step` while the parameters hold their averages.

    Source:
        Frans, Levine and Abbeel, A Stable Whitening Optimizer for Efficient Neural Network Training,
        arXiv 2506.07254.

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = steepest.SPlus(model.parameters(), lr=0.1)
        >>> model(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.eval()  # the model now holds averages: evaluate it
        >>> optimizer.train()
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.1,
        *,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        ema: float | Tensor = 0.999,
        weight_decay: float = 0.01,
        precondition_frequency: int = 100,
        refresh_timing: str = "together",
        maximize: bool = False,
        fused: bool | None = None,
        nonfinite: str | None = None,
        rounding: Rounding = "nearest",
        momentum_dtype: torch.dtype | None = None,
    ) -> None:
        options = {
            "lr": lr,
            "betas": betas,
            "ema": ema,
            "weight_decay": weight_decay,
            "precondition_frequency": precondition_frequency,
            "refresh_timing": refresh_timing,
            "averaged": False,
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
        """Return the rule: max norm in the eigenbasis, EMA momentum, unit step over the mean side."""
        return Rule(
            norm=Max(),
            preconditioner=Eigenbasis(
                beta=0.999,
                frequency=group["precondition_frequency"],
                refresh_timing=group["refresh_timing"],
                start="identity",
                refresh="eigh",
            ),
            momentum=EMA(),
            step=MeanSide(),
            decay="after",
            average=True,
        )
