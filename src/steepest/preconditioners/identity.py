"""No preconditioner: the weight's own coordinates."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from steepest.preconditioners.base import Coordinates, Preconditioner


@dataclass(frozen=True)
class Identity(Preconditioner, Coordinates):
    """L = R = 1. Needs no state."""

    def prepare(
        self, grad: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]
    ) -> Coordinates:
        """Return itself."""
        return self

    def into(self, m: Tensor) -> Tensor:
        """Return ``m``."""
        return m

    def back(self, u: Tensor) -> Tensor:
        """Return ``u``."""
        return u
