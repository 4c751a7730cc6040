"""Coordinates that are others seen in a pair of bases, and what it takes to keep a buffer in them."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from steepest.preconditioners.base import Coordinates
from steepest.preconditioners.factors import product, sandwich, transposed

SIDES = ("left", "right")


@dataclass(frozen=True)
class Rotated(Coordinates):
    """Coordinates ``inside`` the bases Q_L and Q_R; None is the identity.

    ``gradient`` is the projected gradient Q_L^T G Q_R, where statistics inside have needed it already.
    """

    left: Tensor | None
    right: Tensor | None
    inside: Coordinates
    gradient: Tensor | None = None

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


def carry_(
    state: MutableMapping[str, Tensor],
    hypers: Mapping[str, Any],
    side: str,
    who: Tensor | slice,
    old: Tensor,
    new: Tensor,
) -> None:
    """Turn the buffers ``hypers["turned"]``, kept in the bases ``old`` of one side, into the bases ``new``.

    ``who`` are the members of the stack that these bases belong to.
    """
    for name in hypers.get("turned", ()):
        kept = state[name][who]
        if side == "left":
            state[name][who] = product(new.mT, product(old, kept))
        else:
            state[name][who] = product(product(kept, old.mT), new)
