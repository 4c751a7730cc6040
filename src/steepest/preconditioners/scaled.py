"""The diagonal statistic at any scale of the gradient."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steepest.linalg.scaling import power_of_two
from steepest.preconditioners.base import Coordinates
from steepest.preconditioners.diagonal import Diagonal, Scaling
from steepest.preconditioners.factors import enter_, leave_, ordinary, plain


@dataclass(frozen=True)
class ScaledDiagonal(Diagonal):
    """Diagonal with a statistic in units of its own, so that no square of a gradient overflows or vanishes.

    D^2 is the same; V is ``exp_avg_sq * unit^2`` (or ``sum * unit^2``) with ``unit`` a power of two.

    State: that of Diagonal, and ``unit`` (1, 1).
    """

    def init(self, x: Tensor) -> dict[str, Tensor]:
        """Return the statistic before the first gradient, in units of one if it is not zero."""
        return {**super().init(x), "unit": torch.full_like(x[:, :1, :1], float(self.initial > 0))}

    def prepare(
        self, grad: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]
    ) -> Coordinates:
        """Add the gradient's squares to V and return the coordinates of |D * W|."""
        if not grad.numel():
            return super().prepare(grad, state, hypers)
        v, unit, eps = state[self._buffer], state["unit"], hypers["eps"]
        size = power_of_two(grad)
        grad = enter_(v, unit, grad, size)
        if plain(grad, unit) and ordinary(grad, size):
            return super().prepare(grad, state, hypers)
        size = unit ** (2 * self.power)
        if isinstance(eps, Tensor) or eps != 0:
            eps = eps / (unit**2 if self.eps_placement == "inside" else size)
        coordinates = super().prepare(grad, state, {**hypers, "eps": eps})
        assert isinstance(coordinates, Scaling)
        leave_(v, unit, v.amax((-2, -1), keepdim=True))
        return Scaling(coordinates.d_squared * size)
