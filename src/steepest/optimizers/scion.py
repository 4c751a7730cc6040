"""Scion and ClippedScion: unit steps in operator norms chosen layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from steepest.momentum import EMA
from steepest.norms import Norm, Spectral
from steepest.operator_norms import Scaled, operator_norm
from steepest.optimizer import RuleOptimizer
from steepest.rounding import Rounding, compute_dtype
from steepest.rule import Rule
from steepest.steps import Clipped, Radius, StepLength
from steepest.views import as_stack


class Scion(RuleOptimizer):
    """Scion: every layer moves by its radius in an operator norm that fits its role.

    Formula:
        d <- momentum d + (1 - momentum) G
        W <- W - lr radius u(d), or constrained W <- (1 - lr) W - lr radius u(d)
        u by ``norm``: spectral sqrt(m/n) msign(d); spectral_conv sqrt(out/in)/k^2 msign(d); sign
        sign(d)/n; row, col: unit rows / sqrt(n), sqrt(m) times unit columns; bias_rms d / RMS(d); auto by
        the number of dimensions. See :mod:`steepest.operator_norms` for all of them.

    Neighbours:
        Muon with ``scale="spectral"`` and without Nesterov is Scion's spectral norm with radius 1.
        ClippedScion with rho -> 0 is Scion. Constrained, it is stochastic Frank-Wolfe: weights stay in the
        ball of that radius.

    From AdamW:
        lr carries over between widths, not from AdamW. Begin with lr times radius at 0.02 for hidden
        layers; nanoGPT in the paper has radius 50 for hidden layers and 3000 with ``norm="sign"`` for the
        output, with lr near 4e-4.

    State:
        ``momentum_buffer``: 4 bytes per float32 parameter.

    When not to use:
        When layers are not told apart: without groups for embeddings and heads, "auto" treats both as
        hidden matrices.

    Args:
        params: parameters, groups, or (name, parameter) pairs; groups may set ``norm`` and ``radius``.
        lr: step size, in units of the radius.
        momentum: coefficient of the average in [0, 1); the authors' alpha is 1 - momentum. Default 0.9.
        norm: a :class:`~steepest.Norm`, or a name listed in :mod:`steepest.operator_norms`. Default
            ``"auto"``.
        radius: factor of the unit ball, > 0. Default 1.
        constrained: shrink the weight by 1 - lr as well, which keeps it within the ball. Default False.
        orthogonalizer, steps: as in :class:`steepest.Muon`, for the spectral norms.
        maximize, fused, nonfinite, rounding, momentum_dtype: as in :class:`steepest.Adam`.

    Raises:
        ValueError, TypeError, RuntimeError, FloatingPointError: as in :class:`steepest.Adam`.

    Source:
        Pethick et al., Training Deep Learning Models with Norm-Constrained LMOs, arXiv 2502.07529.

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
        >>> head = model[2].weight
        >>> rest = [p for p in model.parameters() if p is not head]
        >>> groups = [{"params": rest, "radius": 8.0}, {"params": [head], "norm": "sign", "radius": 128.0}]
        >>> optimizer = steepest.Scion(groups, lr=0.01)
        >>> steepest.scion_init_(optimizer)  # the paper's initial weights, if wanted
        >>> model(torch.ones(1, 64)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        *,
        momentum: float | Tensor = 0.9,
        norm: str | Norm = "auto",
        radius: float = 1.0,
        constrained: bool = False,
        orthogonalizer: str = "auto",
        steps: int = 5,
        maximize: bool = False,
        fused: bool | None = None,
        nonfinite: str | None = None,
        rounding: Rounding = "nearest",
        momentum_dtype: torch.dtype | None = None,
    ) -> None:
        options = {
            "lr": lr,
            "momentum": momentum,
            "norm": norm,
            "radius": radius,
            "constrained": constrained,
            "orthogonalizer": orthogonalizer,
            "steps": steps,
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
        """Return the rule: an operator norm, EMA momentum, a step of the radius."""
        return _rule(group, Radius())


class ClippedScion(RuleOptimizer):
    """ClippedScion (GGNC): Scion's step, shortened for the whole network as the gradient vanishes.

    Formula:
        d <- momentum d + (1 - momentum) G
        S = sum over all layers of <d, radius u(d)>,  eta = min(1, S / rho)
        W <- W - lr eta radius u(d)
        constrained: v = W + radius u(d), S = sum of <d, v>, W <- W - lr eta v. Outside the ball S can be
        negative; eta is then 0, since a negative one would lead further out.

    Neighbours:
        Scion for rho -> 0. Steepest descent with the sharp operator for rho -> infinity.

    From AdamW:
        As Scion; rho is the size of the dual norm S below which steps shrink: log S for a while first.

    State:
        ``momentum_buffer``: 4 bytes per float32 parameter.

    When not to use:
        With an lr schedule that already goes to zero, which does the same by the clock.

    Args:
        params, lr, momentum, norm, radius, constrained, orthogonalizer, steps: as in
            :class:`steepest.Scion`.
        rho: clipping threshold, > 0.
        maximize, fused, nonfinite, rounding, momentum_dtype: as in :class:`steepest.Adam`.

    Raises:
        ValueError, TypeError, RuntimeError, FloatingPointError: as in :class:`steepest.Adam`.

    Source:
        Pethick et al., Generalized Gradient Norm Clipping and Non-Euclidean (L0, L1)-Smoothness, arXiv
        2506.01913.

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Linear(8, 4)
        >>> optimizer = steepest.ClippedScion(model.parameters(), lr=0.05, rho=1.0)
        >>> model(torch.ones(1, 8)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        rho: float,
        *,
        momentum: float | Tensor = 0.9,
        norm: str | Norm = "auto",
        radius: float = 1.0,
        constrained: bool = False,
        orthogonalizer: str = "auto",
        steps: int = 5,
        maximize: bool = False,
        fused: bool | None = None,
        nonfinite: str | None = None,
        rounding: Rounding = "nearest",
        momentum_dtype: torch.dtype | None = None,
    ) -> None:
        options = {
            "lr": lr,
            "rho": rho,
            "momentum": momentum,
            "norm": norm,
            "radius": radius,
            "constrained": constrained,
            "orthogonalizer": orthogonalizer,
            "steps": steps,
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
        """Return the rule: an operator norm, EMA momentum, a clipped step of the radius."""
        return _rule(group, Clipped())


def _rule(group: Mapping[str, Any], step: StepLength) -> Rule:
    norm = group["norm"]
    if not isinstance(norm, Norm):
        norm = operator_norm(norm, group["orthogonalizer"], group["steps"])
    return Rule(
        norm=norm,
        momentum=EMA(buffer="momentum_buffer"),
        step=step,
        decay="constrained" if group["constrained"] else "decoupled",
    )


@torch.no_grad()
def scion_init_(
    optimizer: Scion | ClippedScion, *, zero_heads: bool = False, generator: torch.Generator | None = None
) -> None:
    """Set all parameters of a Scion optimizer to the paper's initial weights, in place.

    Every matrix becomes a random point on the surface of its ball, radius * u of a Gaussian matrix:
    semi-orthogonal for the spectral norms (each kernel position by itself in convolutions), signs for
    ``sign``, unit rows or columns for ``row`` and ``col``. Vectors and scalars become zero; the gains of
    normalisation layers too, so set those to one afterwards. Never called by the optimizer itself.

    Args:
        optimizer: its groups say which norm and radius a parameter has.
        zero_heads: set parameters with a sign norm to zero, as the paper does for output layers that share
            no weights with the embedding.
        generator: source of random numbers.

    Raises:
        TypeError: for another optimizer.
    """
    if not isinstance(optimizer, Scion | ClippedScion):
        raise TypeError(f"optimizer must be a Scion or ClippedScion, got {type(optimizer).__name__}")
    for group in optimizer.param_groups:
        batch_dims = group.get("batch_dims", 0)
        for param in group["params"]:
            shape = param.shape[batch_dims:]
            norm = optimizer.recipe(group).for_shape(shape).norm
            name = norm.factor if isinstance(norm, Scaled) else ""
            if len(shape) < 2 or (zero_heads and name.startswith("sign")):
                param.zero_()
                continue
            noise = torch.randn(
                param.shape, dtype=compute_dtype(param), device=param.device, generator=generator
            )
            if name == "spectral_conv":
                out, inputs, area = *shape[:2], shape[2:].numel()
                positions = noise.flatten(batch_dims + 2).movedim(-1, -3)
                point = Spectral("svd").direction(positions) * (math.sqrt(out / inputs) / area)
                point = point.movedim(-3, -1)
            else:
                point = _exact(norm).direction(as_stack(noise, batch_dims))
            param.copy_(group["radius"] * point.reshape(param.shape))


def _exact(norm: Norm) -> Norm:
    if isinstance(norm, Scaled):
        return replace(norm, base=_exact(norm.base))
    return replace(norm, orthogonalizer="svd") if isinstance(norm, Spectral) else norm
