"""Coordinates that are others seen in a pair of bases, and what it takes to keep a buffer in them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from steepest.preconditioners.base import Coordinates
from steepest.preconditioners.factors import product, sandwich, transposed

SIDES = ("left", "right")


@dataclass(frozen=True)
class Rotated(Coordinates):
    """Coordinates ``inside`` the bases Q_L and Q_R; None is the identity.

    ``gradient`` is the projected gradient Q_L^T G Q_R, which statistics inside have needed already.
    """

    left: Tensor | None
    right: Tensor | None
    inside: Coordinates
    gradient: Tensor

    def project(self, m: Tensor) -> Tensor:
        """Return Q_L^T M Q_R."""
        return sandwich(transposed(self.left), m, self.right)

    def restore(self, x: Tensor) -> Tensor:
        """Return Q_L X Q_R^T."""
        return sandwich(self.left, x, transposed(self.right))

    def into(self, m: Tensor) -> Tensor:
        """Rotate, then go into the coordinates inside."""
        return self.inside.into(self.project(m))

    def back(self, u: Tensor) -> Tensor:
        """Come back from the coordinates inside, then rotate back."""
        return self.restore(self.inside.back(u))

    def solve(self, m: Tensor) -> Tensor:
        """Rotate, solve inside, rotate back."""
        return self.restore(self.inside.solve(self.project(m)))


def carry_(buffer: Tensor, side: str, old: Tensor, new: Tensor) -> None:
    """Bring a buffer (k, m, n) that is kept in the basis ``old`` of one side into the basis ``new``."""
    if side == "left":
        buffer.copy_(product(new.mT, product(old, buffer)))
    else:
        buffer.copy_(product(product(buffer, old.mT), new))
