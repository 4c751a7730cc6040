"""Changes of the coordinates of a weight, exact and invertible, and the loss times a constant.

A problem in new coordinates W' = phi(W) has the loss f'(W') = f(phi^-1(W')). It is the same problem: nothing
is trained anew and no data changes. Gradients transform as the chain rule says, for instance G' = s * G for
W' = W / s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Linear
from torch.nn import functional as F

LOSS_FACTOR = 10.0
"""What the loss is multiplied by in the column ``"loss"``."""


@dataclass(frozen=True)
class Sided:
    """W' = A W B with invertible A (m, m) and B (n, n)."""

    left: Tensor
    right: Tensor
    left_inverse: Tensor
    right_inverse: Tensor
    as_layer = True

    @classmethod
    def of(cls, left: Tensor, right: Tensor) -> Sided:
        """Return the map of A and B; both are well-conditioned, so that inverses lose nothing."""
        return cls(left, right, torch.linalg.inv(left), torch.linalg.inv(right))

    def new(self, w: Tensor) -> Tensor:
        """Return A W B."""
        return self.left @ w @ self.right

    def old(self, w: Tensor) -> Tensor:
        """Return A^-1 W' B^-1."""
        return self.left_inverse @ w @ self.right_inverse

    def apply(self, layer: Linear, x: Tensor) -> Tensor:
        """Return x W^T for rows x, by a call of the layer that holds W'."""
        return layer(x @ self.right_inverse.mT) @ self.left_inverse.mT


@dataclass(frozen=True)
class Entrywise:
    """W' = W / s with s > 0 of the shape of W. No layer has W' as its matrix."""

    scale: Tensor
    as_layer = False

    def new(self, w: Tensor) -> Tensor:
        """Return W / s."""
        return w / self.scale

    def old(self, w: Tensor) -> Tensor:
        """Return s * W'."""
        return w * self.scale

    def apply(self, layer: Linear, x: Tensor) -> Tensor:
        """Return x (s * W')^T for rows x."""
        return F.linear(x, self.scale * layer.weight)


@dataclass(frozen=True)
class Same:
    """W' = W."""

    as_layer = True

    def new(self, w: Tensor) -> Tensor:
        """Return W."""
        return w

    def old(self, w: Tensor) -> Tensor:
        """Return W'."""
        return w

    def apply(self, layer: Linear, x: Tensor) -> Tensor:
        """Return the layer's output."""
        return layer(x)


Map = Sided | Entrywise | Same


@dataclass(frozen=True)
class Transform:
    """One column of the table: how a map is drawn for a matrix, and what multiplies the loss."""

    name: str
    meaning: str
    draw: Callable[[int, int, float, torch.Generator], Map]
    factor: float = 1.0


def _spread(size: tuple[int, ...], strength: float, generator: torch.Generator) -> Tensor:
    """Return exp of uniform numbers in [-strength, strength]."""
    return torch.exp(strength * (2 * torch.rand(size, generator=generator, dtype=torch.float64) - 1))


def _orthogonal(size: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q


def _invertible(size: int, strength: float, generator: torch.Generator) -> Tensor:
    """Return P diag(exp(u)) Q with random orthogonal P, Q: its condition is at most exp(2 strength)."""
    left, right = _orthogonal(size, generator), _orthogonal(size, generator)
    return (left * _spread((size,), strength, generator)) @ right


def _eye(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)


TRANSFORMS: dict[str, Transform] = {
    transform.name: transform
    for transform in (
        Transform("entries", "W / s, every entry", lambda m, n, k, g: Entrywise(_spread((m, n), k, g))),
        Transform("rows", "diag(r) W", lambda m, n, k, g: Sided.of(torch.diag(_spread((m,), k, g)), _eye(n))),
        Transform(
            "columns", "W diag(c)", lambda m, n, k, g: Sided.of(_eye(m), torch.diag(_spread((n,), k, g)))
        ),
        Transform(
            "affine",
            "A W B, invertible",
            lambda m, n, k, g: Sided.of(_invertible(m, k, g), _invertible(n, k, g)),
        ),
        Transform(
            "rotation", "A W B, orthogonal", lambda m, n, k, g: Sided.of(_orthogonal(m, g), _orthogonal(n, g))
        ),
        Transform("loss", f"{LOSS_FACTOR:g} f", lambda m, n, k, g: Same(), LOSS_FACTOR),
    )
}
"""The columns of the table, in order."""
