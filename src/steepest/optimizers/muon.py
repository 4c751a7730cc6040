"""Muon: steepest descent in the spectral norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from steepest.momentum import EMA
from steepest.norms import Spectral
from steepest.optimizer import RuleOptimizer
from steepest.rounding import Rounding
from steepest.rule import Rule
from steepest.steps import UnitLMO


class Muon(RuleOptimizer):
    """Muon: the averaged gradient with all its singular values set to one.

    Formula:
        B <- momentum B + (1 - momentum) G
        U = momentum B + (1 - momentum) G, or B without Nesterov
        W <- (1 - lr weight_decay) W - lr scale msign(U), where msign(U) = P Q^T for U = P S Q^T
        Tensors of more than two dimensions are read as (size(0), rest).
        Vectors and scalars, and groups with ``rule="aux"``, are trained by AdamW with ``aux``.

    Neighbours:
        MuAdam with D = 1. SignSGD with the spectral instead of the max norm. Shampoo without memory.

    From AdamW:
        With ``scale="match_rms_adamw"`` the update has AdamW's typical size: keep AdamW's lr and decay, for
        ``aux`` too. With ``scale="original"`` begin at 0.02 and keep AdamW's lr in ``aux``.

    State:
        ``momentum_buffer``: 4 bytes per float32 matrix parameter; AdamW's 8 for the auxiliary ones.

    When not to use:
        For embeddings and output heads: give them a group with ``rule="aux"``. For very thin matrices.

    Args:
        params: parameters, groups, or (name, parameter) pairs; a group may set ``rule="aux"`` or
            ``"matrix"``, and ``batch_dims`` for stacks of matrices in one tensor.
        lr: step size; the update's singular values are about lr times the scale. Default 0.02.
        momentum: coefficient of the average in [0, 1). Default 0.95.
        nesterov: look ahead by one step. Default True.
        weight_decay: decoupled decay, >= 0. Default 0.
        scale: factor of the shape (m out, n in): ``"original"`` sqrt(max(1, m/n)), ``"match_rms_adamw"``
            0.2 sqrt(max(m, n)), ``"spectral"`` sqrt(m/n), ``"unit_rms"`` sqrt(max(m, n)), None 1.
        orthogonalizer: how msign is computed: ``"auto"``, the Newton-Schulz iteration in its cheapest form;
            ``"newton_schulz"``, always in the published one; ``"minimax"``, singular values within 0.025 of 1
            in as many steps, 2e-5 in six; ``"svd"``, exact; others in :func:`steepest.linalg.polar`.
        steps: iterations of the orthogonalizer, >= 1. Default 5.
        aux: hyperparameters of the auxiliary AdamW: lr (1e-3), betas (0.9, 0.999), eps (1e-8),
            weight_decay (0).
        maximize, fused, nonfinite, rounding, momentum_dtype: as in :class:`steepest.Adam`.

    Raises:
        ValueError, TypeError, RuntimeError, FloatingPointError: as in :class:`steepest.Adam`.

    Source:
        Jordan et al., Muon: An optimizer for hidden layers in neural networks (2024),
        kellerjordan.github.io/posts/muon; ``match_rms_adamw``: Liu et al., Muon is Scalable for LLM
        Training, arXiv 2502.16982.

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
        >>> optimizer = steepest.Muon(model.parameters(), lr=0.02, aux=dict(lr=1e-3))
        >>> model(torch.ones(1, 64)).sum().backward()
        >>> optimizer.step()
        >>> [(group["rule"], group["lr"]) for group in optimizer.param_groups]
        [('matrix', 0.02), ('aux', 0.001)]
    """

    hybrid = True

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.02,
        *,
        momentum: float | Tensor = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        scale: str | None = "original",
        orthogonalizer: str = "auto",
        steps: int = 5,
        aux: Mapping[str, Any] | None = None,
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
            "scale": scale,
            "orthogonalizer": orthogonalizer,
            "steps": steps,
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
        """Return the rule: spectral norm, Nesterov EMA, unit step times the shape scale."""
        return Rule(
            norm=Spectral(group["orthogonalizer"], group["steps"]),
            momentum=EMA(nesterov=group["nesterov"], buffer="momentum_buffer"),
            step=UnitLMO(group["scale"]),
        )
