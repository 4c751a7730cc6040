"""MuAdam and MuAdamSANIA: the spectral norm in Adam's coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from steepest.momentum import EMA
from steepest.norms import Spectral
from steepest.optimizer import RuleOptimizer
from steepest.preconditioners import Diagonal
from steepest.rounding import Rounding
from steepest.rule import Rule
from steepest.steps import UnitLMO


class MuAdam(RuleOptimizer):
    """MuAdam: Muon's step taken in the coordinates that make Adam adaptive.

    Formula:
        m <- b1 m + (1 - b1) G,  v <- b2 v + (1 - b2) G^2
        D^2 = (sqrt(v) + eps) / sqrt(1 - b2^t), D its entrywise root
        W <- (1 - lr weight_decay) W - lr scale msign(m / (1 - b1^t) / D) / D
        Tensors of more than two dimensions are read as (size(0), rest).
        Vectors and scalars, and groups with ``rule="aux"``, are trained by AdamW with ``aux``.

    Neighbours:
        Muon for D = 1. Adam with the spectral instead of the Frobenius norm and a unit step. RMSspectral
        (Carlson et al. 2015) times the nuclear norm and without momentum.

    From AdamW:
        The outer 1/D makes the update larger as gradients get smaller (G -> cG gives c^-1/2), so lr is well
        below Muon's: begin at a tenth of AdamW's and sweep downwards and upwards by threes.

    State:
        ``exp_avg`` and ``exp_avg_sq`` of the parameter's shape, and ``step``: 8 bytes per float32
        parameter.

    When not to use:
        For embeddings and output heads: give them a group with ``rule="aux"``. When there is no budget to
        sweep lr: it does not carry over between models as Muon's does.

    Args:
        params: parameters, groups, or (name, parameter) pairs; a group may set ``rule="aux"`` or
            ``"matrix"``, and ``batch_dims`` for stacks of matrices in one tensor.
        lr: step size, in units of weight times the root of gradient. Default 1e-3.
        betas: coefficients of the two averages, each in [0, 1). Default (0.95, 0.95).
        eps: added to the root of v before bias correction, >= 0. Default 1e-8.
        weight_decay: decoupled decay, >= 0. Default 0.
        scale, orthogonalizer, steps, aux: as in :class:`steepest.Muon`.
        maximize, fused, nonfinite, rounding, momentum_dtype: as in :class:`steepest.Adam`.

    Raises:
        ValueError, TypeError, RuntimeError, FloatingPointError: as in :class:`steepest.Adam`.

    Source:
        Preconditioned Norms: A Unified Framework for Steepest Descent, Quasi-Newton and Adaptive Methods,
        arXiv 2510.10777. Its public research code keeps t at 1 in the bias correction, so that its late
        updates are (1 - b2)^(1/4) of these: multiply lr by that (0.473 at b2 = 0.95) to repeat its runs.

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
        >>> optimizer = steepest.MuAdam(model.parameters(), lr=3e-4, aux=dict(lr=1e-3))
        >>> model(torch.ones(1, 64)).sum().backward()
        >>> optimizer.step()
    """

    hybrid = True

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        *,
        betas: tuple[float | Tensor, float | Tensor] = (0.95, 0.95),
        eps: float = 1e-8,
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
            "betas": betas,
            "eps": eps,
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
        """Return the rule: spectral norm, D^2 = V^1/2, EMA momentum, unit step times the shape scale."""
        return _spectral_adam(group, Diagonal(power=0.5, eps_placement="uncorrected"))


class MuAdamSANIA(MuAdam):
    """MuAdamSANIA: Muon's step in coordinates that make it invariant to the scale of every entry.

    Formula:
        m <- b1 m + (1 - b1) G,  v <- b2 v + (1 - b2) G^2
        D^2 = v / (1 - b2^t) + eps, D its entrywise root
        W <- (1 - lr weight_decay) W - lr scale msign(m / (1 - b1^t) / D) / D
        Tensors of more than two dimensions are read as (size(0), rest).
        Vectors and scalars, and groups with ``rule="aux"``, are trained by AdamW with ``aux``.

    Neighbours:
        MuAdam with power 1 instead of 1/2. AdamSANIA with the spectral norm and a unit step. The first step
        sees only the signs of G, as m / D is then sign(G): S = scale msign(sign(G)) / |G|, for eps -> 0.

    From AdamW:
        There is no fixed ratio: the update is in units of 1/gradient (G -> cG gives 1/c), so lr must grow
        with the gradient's size. Begin at AdamW's lr times the typical size of a gradient entry.

    State:
        ``exp_avg`` and ``exp_avg_sq`` of the parameter's shape, and ``step``: 8 bytes per float32
        parameter.

    When not to use:
        When gradients shrink by orders of magnitude during training: steps grow as they do. It is made for
        badly scaled features, where W' = W/s entrywise must not change the path.

    Args:
        params: parameters, groups, or (name, parameter) pairs; a group may set ``rule="aux"`` or
            ``"matrix"``, and ``batch_dims`` for stacks of matrices in one tensor.
        lr: step size, in units of weight times gradient. Default 1e-3.
        betas: coefficients of the two averages, each in [0, 1). Default (0.95, 0.95).
        eps: added to the corrected v, >= 0. Default 1e-8.
        weight_decay: decoupled decay, >= 0. Default 0.
        scale, orthogonalizer, steps, aux: as in :class:`steepest.Muon`.
        maximize, fused, nonfinite, rounding, momentum_dtype: as in :class:`steepest.Adam`.

    Raises:
        ValueError, TypeError, RuntimeError, FloatingPointError: as in :class:`steepest.Adam`.

    Source:
        Preconditioned Norms: A Unified Framework for Steepest Descent, Quasi-Newton and Adaptive Methods,
        arXiv 2510.10777.

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
        >>> optimizer = steepest.MuAdamSANIA(model.parameters(), lr=1e-4, aux=dict(lr=1e-3))
        >>> model(torch.ones(1, 64)).sum().backward()
        >>> optimizer.step()
    """

    @classmethod
    def recipe(cls, group: Mapping[str, Any]) -> Rule:
        """Return the rule: spectral norm, D^2 = V, EMA momentum, unit step times the shape scale."""
        return _spectral_adam(group, Diagonal(power=1))


def _spectral_adam(group: Mapping[str, Any], diagonal: Diagonal) -> Rule:
    return Rule(
        norm=Spectral(group["orthogonalizer"], group["steps"]),
        preconditioner=diagonal,
        momentum=EMA(bias_correction=True),
        step=UnitLMO(group["scale"]),
    )
