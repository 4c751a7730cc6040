"""Momentum: what is averaged over time, and on which side of the oracle.

``where="before"`` averages gradients and hands the average to the oracle (Adam, Muon);
``where="after"`` averages finished directions (ANDI). Heavy-ball is a sum, EMA a mean; both read their
coefficient as the hyperparameter ``momentum`` at every step, so that schedules reach it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from steepest.part import Part

Where = Literal["before", "after"]


class Momentum(Part, ABC):
    """One choice of averaging. ``__call__`` updates its buffer in place and returns what to use now."""

    where: Where = "before"
    linear: ClassVar[bool] = False
    """Whether the average of rotated values is the rotated average."""

    @property
    def needs_step(self) -> bool:
        """Whether the count of steps is part of the formula."""
        return False

    def init(self, x: Tensor) -> dict[str, Tensor]:
        """Return the state for a stack ``x`` (k, m, n) before its first step."""
        return {}

    @abstractmethod
    def __call__(self, x: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]) -> Tensor:
        """Return the averaged ``x``, possibly the buffer itself: no part changes what it is handed."""


@dataclass(frozen=True)
class NoMomentum(Momentum):
    """The current value alone."""

    linear = True

    def __call__(self, x: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]) -> Tensor:
        """Return ``x``."""
        return x


@dataclass(frozen=True)
class HeavyBall(Momentum):
    """M <- mu M + X; returns M, or X + mu M with ``nesterov``.

    ``start="gradient"`` lets the buffer begin as the first X and then take the ordinary first update, so
    that M_1 = (1 + mu) X_1; ``"zero"`` begins at zero. State: ``momentum_buffer``, one per parameter
    (and a step count for ``start="gradient"``).
    """

    momentum: float = 0.9
    nesterov: bool = False
    where: Where = "before"
    start: Literal["zero", "gradient"] = "zero"
    linear = True

    def __post_init__(self) -> None:
        _check_where(self.where)
        if self.start not in ("zero", "gradient"):
            raise ValueError(f"start must be 'zero' or 'gradient', got {self.start!r}")

    @property
    def needs_step(self) -> bool:
        """True for ``start="gradient"``, whose first step differs."""
        return self.start == "gradient"

    def hypers(self) -> dict[str, Any]:
        """Return ``momentum``."""
        return {"momentum": self.momentum}

    def init(self, x: Tensor) -> dict[str, Tensor]:
        """Return a zero buffer."""
        return {"momentum_buffer": torch.zeros_like(x)}

    def __call__(self, x: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]) -> Tensor:
        """Update the sum and return it."""
        mu = hypers["momentum"]
        buffer = state["momentum_buffer"]
        if self.start == "gradient":
            first = torch.as_tensor(hypers["step"] == 1, device=x.device)
            buffer.copy_(torch.where(first, x, buffer))
        buffer.mul_(mu).add_(x)
        if not self.nesterov:
            return buffer
        return x + mu * buffer if isinstance(mu, Tensor) else x.add(buffer, alpha=mu)


@dataclass(frozen=True)
class EMA(Momentum):
    """M <- b M + (1 - b) X; returns M, or b M + (1 - b) X with ``nesterov``.

    ``bias_correction`` divides by the weights summed so far: 1 - b^t, or 1 - b^(t+1) with Nesterov. State:
    one buffer, called ``buffer``, and the step count when bias-corrected.
    """

    momentum: float = 0.9
    nesterov: bool = False
    bias_correction: bool = False
    where: Where = "before"
    buffer: str = "exp_avg"
    linear = True

    def __post_init__(self) -> None:
        _check_where(self.where)

    @property
    def needs_step(self) -> bool:
        """True when bias-corrected."""
        return self.bias_correction

    def hypers(self) -> dict[str, Any]:
        """Return ``momentum``."""
        return {"momentum": self.momentum}

    def init(self, x: Tensor) -> dict[str, Tensor]:
        """Return a zero buffer."""
        return {self.buffer: torch.zeros_like(x)}

    def __call__(self, x: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]) -> Tensor:
        """Update the mean and return it."""
        b = hypers["momentum"]
        mean = state[self.buffer].lerp_(x, 1 - b)
        average = torch.lerp(mean, x, 1 - b) if self.nesterov else mean
        if not self.bias_correction:
            return average
        weight = 1 - b ** (hypers["step"] + self.nesterov)
        # On devices the count is a float64 tensor, which would widen the average.
        return average / (weight.to(average.dtype) if isinstance(weight, Tensor) else weight)


def _check_where(where: str) -> None:
    if where not in ("before", "after"):
        raise ValueError(f"where must be 'before' or 'after' the oracle, got {where!r}")
