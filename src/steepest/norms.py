"""Base norms: the unit ball a step is measured in.

A norm knows its ``value`` |X|, its ``dual`` |G|* = max <G, X> over |X| <= 1, and the steepest
``direction`` u(G), the point of the unit ball where that maximum is attained. ``lmo(G) = -u(G)`` is the
linear minimisation oracle. Always <G, u(G)> = |G|* and |u(G)| = 1 for G != 0, and u(0) = 0. The classics
are one line each:

- Frobenius: u = G / |G|_F (normalized SGD; times its dual it is G itself: SGD, Adam, Shampoo)
- Max: u = sign(G) (SignSGD)
- Spectral: u = U V^T of the thin SVD of G (Muon)
- RowNorm, ColNorm: every row or column divided by its length

All methods take (..., m, n) and treat the leading dimensions as a batch; values come back as (..., 1, 1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Size, Tensor

from steepest.linalg import POLAR_METHODS, check_polar, polar
from steepest.numeric import divide, length
from steepest.part import Part


class Norm(Part, ABC):
    """One choice of geometry. Subclasses are frozen dataclasses, so that rules can be compared."""

    matrix_only: ClassVar[bool] = False
    """Whether the norm has no meaning for vectors and scalars."""
    euclidean: ClassVar[bool] = False
    """Whether |G|* u(G) = G, so that a dual-scaled step needs no norm at all."""
    batches: ClassVar[bool] = False
    """Whether stacking matrices of one shape makes the oracle cheaper."""

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:
        """Return |X|, shape (..., 1, 1)."""

    @abstractmethod
    def dual(self, g: Tensor) -> Tensor:
        """Return |G|*, shape (..., 1, 1)."""

    @abstractmethod
    def direction(self, g: Tensor) -> Tensor:
        """Return u(G) = -lmo(G), the unit-norm maximiser of <G, X>; zero for a zero G."""

    def lmo(self, g: Tensor) -> Tensor:
        """Return the linear minimisation oracle argmin <G, X> over |X| <= 1."""
        return -self.direction(g)

    def for_shape(self, shape: Size) -> Norm:
        """Return the norm to use for one parameter of this shape; itself unless a norm depends on it."""
        return self


@dataclass(frozen=True)
class Frobenius(Norm):
    """Root of the sum of squares; its own dual.

    >>> import torch
    >>> Frobenius().direction(torch.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]])
    """

    euclidean = True

    def value(self, x: Tensor) -> Tensor:
        """Return |X|_F."""
        return length(x).to(x.dtype)

    def dual(self, g: Tensor) -> Tensor:
        """Return |G|_F."""
        return length(g).to(g.dtype)

    def direction(self, g: Tensor) -> Tensor:
        """Return G / |G|_F."""
        return divide(g, length(g))


@dataclass(frozen=True)
class Max(Norm):
    """Largest absolute entry; the dual is the sum of absolute entries.

    >>> import torch
    >>> Max().direction(torch.tensor([[3.0, -4.0, 0.0]]))
    tensor([[ 1., -1.,  0.]])
    """

    def value(self, x: Tensor) -> Tensor:
        """Return the largest |X_ij|."""
        return torch.linalg.vector_norm(x, float("inf"), dim=(-2, -1), keepdim=True)

    def dual(self, g: Tensor) -> Tensor:
        """Return the sum of |G_ij|."""
        return torch.linalg.vector_norm(g, 1, dim=(-2, -1), keepdim=True)

    def direction(self, g: Tensor) -> Tensor:
        """Return sign(G), with sign(0) = 0."""
        return torch.sign(g).add_(g, alpha=0)  # the sign of NaN is 0 on some devices; it must show


@dataclass(frozen=True)
class Spectral(Norm):
    """Largest singular value; the dual is the nuclear norm, the direction the polar factor U V^T.

    ``orthogonalizer`` and ``steps`` choose how the polar factor is computed, and with ``"auto"`` so does
    ``error``, the largest deviation of singular values from 1 (see :func:`steepest.linalg.polar`): ``"svd"``
    is exact, the polynomial iterations are faster and leave singular values near 1. ``value`` and ``dual``
    are always exact.

    >>> import torch
    >>> Spectral(orthogonalizer="svd").direction(torch.tensor([[2.0, 0.0], [0.0, -3.0]])).round(decimals=4)
    tensor([[ 1.,  0.],
            [ 0., -1.]])
    """

    orthogonalizer: str = "auto"
    steps: int = 5
    error: float | None = None
    matrix_only = True
    batches = True

    def __post_init__(self) -> None:
        if self.orthogonalizer not in POLAR_METHODS:
            raise ValueError(
                f"orthogonalizer must be one of {', '.join(map(repr, POLAR_METHODS))}, "
                f"got {self.orthogonalizer!r}"
            )
        check_polar(self.orthogonalizer, self.steps, error=self.error)

    def value(self, x: Tensor) -> Tensor:
        """Return the largest singular value."""
        return torch.linalg.matrix_norm(x, 2, keepdim=True)

    def dual(self, g: Tensor) -> Tensor:
        """Return the sum of singular values."""
        return torch.linalg.matrix_norm(g, "nuc", keepdim=True)

    def direction(self, g: Tensor) -> Tensor:
        """Return U V^T of the thin SVD, to the accuracy of the chosen orthogonalizer."""
        return polar(g, method=self.orthogonalizer, steps=self.steps, error=self.error)


@dataclass(frozen=True)
class RowNorm(Norm):
    """Largest Euclidean length of a row; the dual is the sum of row lengths.

    >>> import torch
    >>> RowNorm().direction(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 1.0000]])
    """

    matrix_only = True
    _along: ClassVar[int] = -1

    def value(self, x: Tensor) -> Tensor:
        """Return the largest length."""
        return length(x, self._along).amax(dim=(-2, -1), keepdim=True).to(x.dtype)

    def dual(self, g: Tensor) -> Tensor:
        """Return the sum of lengths."""
        return length(g, self._along).sum(dim=(-2, -1), keepdim=True).to(g.dtype)

    def direction(self, g: Tensor) -> Tensor:
        """Return every row (column) divided by its length; zero rows (columns) stay zero."""
        return divide(g, length(g, self._along))


@dataclass(frozen=True)
class ColNorm(RowNorm):
    """Largest Euclidean length of a column; the dual is the sum of column lengths.

    >>> import torch
    >>> ColNorm().direction(torch.tensor([[3.0, 0.0], [4.0, 2.0]]))
    tensor([[0.6000, 0.0000],
            [0.8000, 1.0000]])
    """

    _along: ClassVar[int] = -2
