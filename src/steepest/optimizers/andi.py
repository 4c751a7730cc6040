"""ANDI: equilibration of the gradient by its own rows and columns, at linear cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from steepest.momentum import HeavyBall
from steepest.optimizer import RuleOptimizer
from steepest.preconditioners import Equilibration
from steepest.preconditioners.equilibration import Mixing
from steepest.rounding import Rounding
from steepest.rule import Rule
from steepest.steps import EnergyFloor


class ANDI(RuleOptimizer):
    """ANDI: every gradient entry divided by the lengths of its row and column, momentum afterwards.

    Formula:
        r_i = |G_i,:|, c_j = |G_:,j|
        Ghat = G / (r_i + c_j + eps),  tau = sqrt(|G|_F^2 + 1),  H = tau / (|Ghat|_F + eps) Ghat
        M <- momentum M + H
        W <- (1 - lr weight_decay) W - lr (H + momentum M), or - lr M without Nesterov
        Matrices with min(m, n) <= threshold, vectors and scalars: H = tau / (|G|_F + eps) G.
        Tensors of more than two dimensions are read as (size(0), rest).

    Neighbours:
        NormalizedSGD with an energy floor, for threshold = infinity. One division away from row- and
        column-normalised SGD; Muon equalises singular values where ANDI equalises rows and columns.

    From AdamW:
        lr is in units of a whole matrix's step (|H|_F >= 1), so it depends on size, not on entries: begin
        at 0.02 and sweep {0.2, 0.1, 0.05, 0.02, 0.01, 0.005}, which is what its author did.

    State:
        ``momentum_buffer``: 4 bytes per float32 parameter (and ``step`` for ``momentum_init="gradient"``).

    When not to use:
        For LoRA factors and other matrices no wider than ``threshold``, unless it is set below their rank:
        they would be merely normalised.

    Args:
        params: parameters, groups, or (name, parameter) pairs.
        lr: step size. Default 0.02.
        momentum: heavy-ball coefficient of the finished directions, in [0, 1). Default 0.9.
        nesterov: look ahead by one step. Default True.
        weight_decay: decoupled decay, >= 0. Default 0.
        threshold: largest min(m, n) that is not equilibrated, >= 0. Default 16.
        eps: added to both denominators, >= 0. Default 1e-8.
        mixing: None; ``"lateral"`` divides the gradient, its columns rolled by ``shift``, by the norms of
            the un-rolled one and rolls back; ``"direct"`` rolls before the norms too, which changes nothing
            (column norms move with their columns) and is kept for its name.
        shift: columns to roll by. Default 7.
        momentum_init: ``"zero"`` as in the paper; ``"gradient"`` starts the buffer at the first direction
            before its ordinary first update, so that M_1 = (1 + momentum) H_1, as in the author's script.
        maximize, fused, nonfinite, rounding, momentum_dtype: as in :class:`steepest.Adam`.

    Raises:
        ValueError, TypeError, RuntimeError, FloatingPointError: as in :class:`steepest.Adam`.

    Source:
        Khasia, ANDI: Adaptive Norm-Distribution Interface (2025), DOI 10.5281/zenodo.17923146.

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
        >>> optimizer = steepest.ANDI(model.parameters(), lr=0.02)
        >>> model(torch.ones(1, 64)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.02,
        *,
        momentum: float | Tensor = 0.9,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        threshold: int = 16,
        eps: float = 1e-8,
        mixing: Mixing | None = None,
        shift: int = 7,
        momentum_init: Literal["zero", "gradient"] = "zero",
        maximize: bool = False,
        fused: bool | None = None,
        nonfinite: str | None = None,
        rounding: Rounding = "nearest",
        momentum_dtype: torch.dtype | None = None,
    ) -> None:
        options = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "threshold": threshold,
            "eps": eps,
            "mixing": mixing,
            "shift": shift,
            "momentum_init": momentum_init,
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
        """Return the rule: Frobenius norm, equilibration, heavy-ball after the oracle, energy floor."""
        return Rule(
            preconditioner=Equilibration(
                threshold=group["threshold"], mixing=group["mixing"], shift=group["shift"]
            ),
            momentum=HeavyBall(nesterov=group["nesterov"], where="after", start=group["momentum_init"]),
            step=EnergyFloor(),
        )
