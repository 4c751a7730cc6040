"""Diagonal preconditioners: every entry measured in its own unit.

The norm is |D * W| with D^2 = V^power, V a statistic of squared gradients. With the Frobenius norm and dual
scaling the step is M / D^2, so

- power 1/2, EMA: Adam; with a running sum: Adagrad
- power 1/3, EMA: the framework's MADGRAD row
- power 1, EMA: AdamSANIA
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from steepest.preconditioners.base import Coordinates, Preconditioner

EpsPlacement = Literal["outside", "uncorrected", "inside", "floor"]


@dataclass(frozen=True)
class Scaling(Coordinates):
    """The coordinates of |D * W|, given D^2."""

    d_squared: Tensor

    @cached_property
    def _d(self) -> Tensor:
        return self.d_squared.sqrt()

    def into(self, m: Tensor) -> Tensor:
        """Return M / D."""
        return m / self._d

    def back(self, u: Tensor) -> Tensor:
        """Return U / D."""
        return u / self._d

    def solve(self, m: Tensor) -> Tensor:
        """Return M / D^2."""
        return m / self.d_squared


@dataclass(frozen=True)
class Diagonal(Preconditioner):
    """D^2 = V^power of the statistic V of squared gradients.

    V is an exponential average with coefficient ``beta`` (the hyperparameter ``beta2``), bias-corrected by
    c = 1 - beta^t unless ``bias_correction=False``, or with ``beta=None`` the running sum, where c = 1. The
    current gradient is part of it. ``eps_placement`` says where ``eps`` enters:

    - ``"outside"``: D^2 = (V/c)^power + eps (Adam, Adagrad, AdamSANIA)
    - ``"uncorrected"``: D^2 = (V^power + eps) / c^power (MuAdam)
    - ``"inside"``: D^2 = (V/c + eps)^power
    - ``"floor"``: D^2 = max((V/c)^power, eps) (SANIA with a Polyak step)

    Squares of float32 entries overflow beyond 1.8e19: V is then inf for good and the entry stands still;
    :class:`~steepest.preconditioners.ScaledDiagonal` has no such limit. The running sum starts at
    ``initial``. State: ``exp_avg_sq``, or ``sum`` for the running sum, of the parameter's shape.
    """

    power: float = 0.5
    beta: float | None = 0.999
    eps: float = 1e-8
    eps_placement: EpsPlacement = "outside"
    bias_correction: bool = True
    initial: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.power <= 1:
            raise ValueError(f"power must be in (0, 1], got {self.power!r}")
        placements = get_args(EpsPlacement)
        if self.eps_placement not in placements:
            allowed = ", ".join(map(repr, placements))
            raise ValueError(f"eps_placement must be one of {allowed}, got {self.eps_placement!r}")
        if not self.initial >= 0:
            raise ValueError(f"initial must be >= 0, got {self.initial!r}")

    @property
    def needs_step(self) -> bool:
        """True when bias-corrected."""
        return self.beta is not None and self.bias_correction

    @property
    def _buffer(self) -> str:
        return "sum" if self.beta is None else "exp_avg_sq"

    def hypers(self) -> dict[str, Any]:
        """Return ``eps``, and ``beta2`` for the exponential average."""
        return {"eps": self.eps} if self.beta is None else {"beta2": self.beta, "eps": self.eps}

    def init(self, x: Tensor) -> dict[str, Tensor]:
        """Return the statistic before the first gradient."""
        return {self._buffer: torch.full_like(x, self.initial)}

    def prepare(
        self, grad: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]
    ) -> Coordinates:
        """Add the gradient's squares to V and return the coordinates of |D * W|."""
        v, eps = state[self._buffer], hypers["eps"]
        if self.beta is None:
            v.addcmul_(grad, grad)
        else:
            # Not lerp_, which would turn a V that overflowed to inf into NaN.
            v.mul_(hypers["beta2"])
            if isinstance(hypers["beta2"], Tensor):
                v.add_((grad * grad).mul_(1 - hypers["beta2"]))
            else:
                v.addcmul_(grad, grad, value=1 - hypers["beta2"])
        correction = 1 - hypers["beta2"] ** hypers["step"] if self.needs_step else 1.0
        # In place after the first operation, which leaves V alone. On devices the correction is a float64
        # tensor: only in place does the result keep its dtype.
        if self.eps_placement == "inside":
            d_squared = self._power(v.clone().div_(correction).add_(eps))
        elif self.eps_placement == "floor":
            d_squared = self._fresh(v).div_(correction**self.power).clamp_(min=eps)
        elif self.eps_placement == "uncorrected":
            d_squared = self._fresh(v).add_(eps).div_(correction**self.power)
        else:
            d_squared = self._fresh(v).div_(correction**self.power).add_(eps)
        if isinstance(eps, Tensor) or eps == 0:  # entries that never saw a gradient: 0 / 0 = 0
            d_squared = torch.where(d_squared > 0, d_squared, float("inf"))
        return Scaling(d_squared)

    def _power(self, v: Tensor) -> Tensor:
        if self.power == 0.5:
            return v.sqrt()
        return v if self.power == 1 else v.pow(self.power)

    def _fresh(self, v: Tensor) -> Tensor:
        """Return V^power as a tensor of its own."""
        return v.clone() if self.power == 1 else self._power(v)
