"""Step lengths: how far to go along the steepest direction.

Unit members (Muon, SignSGD, MuAdam) move by the unit-norm direction, times a factor of the shape;
dual-scaled members (SGD, Adam, Shampoo) move by direction times dual norm, which for the Frobenius norm
is the preconditioned gradient itself; ANDI restores an energy floor; RMS matching fixes the size of the
entries.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Size, Tensor

from steepest.numeric import as_tensor, length
from steepest.part import Part

SHAPE_SCALES = {
    None: lambda m, n: 1.0,
    "original": lambda m, n: math.sqrt(max(1.0, m / n)),
    "match_rms_adamw": lambda m, n: 0.2 * math.sqrt(max(m, n)),
    "spectral": lambda m, n: math.sqrt(m / n),
    "unit_rms": lambda m, n: math.sqrt(max(m, n)),
}
"""Factors of the (out, in) shape of a matrix, by name."""


class StepLength(Part, ABC):
    """One choice of length. ``__call__`` gets the finished direction and returns the step."""

    dual_scaled: ClassVar[bool] = False
    """Whether the direction arrives multiplied by the dual norm."""
    whole_network: ClassVar[bool] = False
    """Whether one factor for all parameters, :meth:`factor`, multiplies the step."""

    needs_loss: ClassVar[bool] = False
    """Whether :meth:`factor` needs the loss, so that ``step`` must be given a closure."""

    @abstractmethod
    def __call__(self, direction: Tensor, x: Tensor, hypers: Mapping[str, Any]) -> Tensor:
        """Return the step from the direction S (k, m, n) and the oracle's input ``x`` of that shape."""

    def rate(self, shape: Size) -> float:
        """Return what multiplies lr, for the step and the decay alike, for a parameter of this shape."""
        return 1.0

    def factor(self, total: Tensor, hypers: Mapping[str, Any]) -> Tensor:
        """Return the factor of a whole-network step, from the sum of <M, S> over all parameters.

        ``hypers["loss"]`` is the closure's loss, or None.
        """
        return torch.ones_like(total)


@dataclass(frozen=True)
class UnitLMO(StepLength):
    """The direction as the oracle gives it, times a shape scale.

    ``scale`` for a matrix of m outputs and n inputs: ``None`` 1; ``"original"`` sqrt(max(1, m/n));
    ``"match_rms_adamw"`` 0.2 sqrt(max(m, n)); ``"spectral"`` sqrt(m/n); ``"unit_rms"`` sqrt(max(m, n)).
    """

    scale: str | None = None

    def __post_init__(self) -> None:
        if self.scale not in SHAPE_SCALES:
            allowed = ", ".join(repr(name) for name in SHAPE_SCALES)
            raise ValueError(f"scale must be one of {allowed}, got {self.scale!r}")

    def __call__(self, direction: Tensor, x: Tensor, hypers: Mapping[str, Any]) -> Tensor:
        """Return ``scale * S``."""
        factor = self.factor_of(x.shape[-2], x.shape[-1])
        return direction if factor == 1.0 else direction * factor

    def factor_of(self, m: int, n: int) -> float:
        """Return the scale for a matrix of m outputs and n inputs."""
        return SHAPE_SCALES[self.scale](max(1, m), max(1, n))


@dataclass(frozen=True)
class DualScaled(StepLength):
    """Direction times dual norm: the sharp operator."""

    dual_scaled = True

    def __call__(self, direction: Tensor, x: Tensor, hypers: Mapping[str, Any]) -> Tensor:
        """Return the direction, which the rule has already multiplied by the dual norm."""
        return direction


@dataclass(frozen=True)
class EnergyFloor(StepLength):
    """tau S / (|S|_F + eps) with tau = sqrt(|X|_F^2 + 1): a length that never falls below one.

    The step is as long as the gradient when that is large, and of length one near a stationary point.
    A zero direction stays zero. A preconditioner with an ``eps`` shares it with this step: one number of the
    group, by default the preconditioner's.
    """

    eps: float = 1e-8
    dual_scaled = True

    def hypers(self) -> dict[str, Any]:
        """Return ``eps``."""
        return {"eps": self.eps}

    def __call__(self, direction: Tensor, x: Tensor, hypers: Mapping[str, Any]) -> Tensor:
        """Return ``tau / (|S|_F + eps) * S``."""
        return self.stretched(direction, length(direction), length(x), hypers)

    def stretched(self, direction: Tensor, size: Tensor, energy: Tensor, hypers: Mapping[str, Any]) -> Tensor:
        """Return the step for a direction of norm ``size`` and an oracle's input of norm ``energy``."""
        tau = torch.sqrt(energy * energy + 1)
        size = torch.where(size > 0, size + hypers["eps"], 1.0)  # no quotient of the two, which may overflow
        return (direction / size.to(direction.dtype)).mul_(tau.to(direction.dtype))


@dataclass(frozen=True)
class RMSMatched(StepLength):
    """S rescaled so that the root mean square of its entries is ``rms`` (AdamW's is about 0.2)."""

    rms: float = 0.2

    def __post_init__(self) -> None:
        if not self.rms > 0:
            raise ValueError(f"rms must be > 0, got {self.rms!r}")

    def __call__(self, direction: Tensor, x: Tensor, hypers: Mapping[str, Any]) -> Tensor:
        """Return ``rms * S / RMS(S)``."""
        return self.matched(direction, length(direction), x.shape[-2] * x.shape[-1])

    def matched(self, direction: Tensor, size: Tensor, entries: int) -> Tensor:
        """Return the step for a direction of norm ``size`` in a matrix of so many entries."""
        size = size / math.sqrt(max(1, entries))
        return direction * (self.rms / torch.where(size > 0, size, 1.0)).to(direction.dtype)


@dataclass(frozen=True)
class Radius(StepLength):
    """The unit direction times a radius: a step to the surface of a larger ball.

    The radius is the hyperparameter ``radius``, so that groups can differ.
    """

    radius: float = 1.0

    def hypers(self) -> dict[str, Any]:
        """Return ``radius``."""
        return {"radius": self.radius}

    def __call__(self, direction: Tensor, x: Tensor, hypers: Mapping[str, Any]) -> Tensor:
        """Return ``radius * S``."""
        return direction * hypers["radius"]


@dataclass(frozen=True)
class Clipped(Radius):
    """The radius step times min(1, <M, S> / rho), one factor for the whole network.

    <M, S> sums over all parameters: it is the dual norm of the momentum, the generalised gradient norm. Far
    from a solution it exceeds ``rho`` and the steps are unit steps; near one they shrink with it, as in
    steepest descent.
    """

    rho: float = 1.0
    whole_network = True

    def hypers(self) -> dict[str, Any]:
        """Return ``radius`` and ``rho``."""
        return {**super().hypers(), "rho": self.rho}

    def factor(self, total: Tensor, hypers: Mapping[str, Any]) -> Tensor:
        """Return min(1, total / rho), and 0 for a negative total."""
        return torch.clamp(total / hypers["rho"], min=0.0, max=1.0)


@dataclass(frozen=True)
class MeanSide(StepLength):
    """The unit direction with lr divided by the mean of the sides: lr * 2 / (m + n), for decay too.

    Vectors and scalars have lr * ``vectors``.
    """

    vectors: float = 0.001

    def rate(self, shape: Size) -> float:
        """Return 2 / (m + n) for a matrix, once flattened, else ``vectors``."""
        return 2 / (shape[0] + shape[1:].numel()) if len(shape) >= 2 else self.vectors

    def __call__(self, direction: Tensor, x: Tensor, hypers: Mapping[str, Any]) -> Tensor:
        """Return the direction: the length is in lr."""
        return direction


@dataclass(frozen=True)
class Polyak(DualScaled):
    """The dual-scaled step times lambda, the step at which a quadratic model of the loss reaches zero.

    With f the loss of the closure and q = <M, S> over the whole network, lambda = 1 - sqrt(1 - 2 f / q) if
    2 f < q, else 1. Made for losses whose least value is zero. Negative losses count as zero.

    Source: Abdukhakimov et al., SANIA, arXiv 2312.17369.
    """

    whole_network = True
    needs_loss = True

    def factor(self, total: Tensor, hypers: Mapping[str, Any]) -> Tensor:
        """Return lambda."""
        loss = as_tensor(hypers["loss"]).detach().to(total).clamp(min=0)
        ratio = 2 * loss / torch.where(total > 0, total, 1.0)
        solvable = (ratio < 1) & (total > 0)
        return torch.where(solvable, 1 - torch.sqrt(1 - torch.where(solvable, ratio, 0.0)), 1.0)
