"""Equilibration: entries measured by the lengths of the row and column they stand in (ANDI)."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Size, Tensor

from steepest.numeric import length
from steepest.preconditioners.base import Coordinates, Preconditioner
from steepest.preconditioners.diagonal import Scaling
from steepest.preconditioners.identity import Identity

Mixing = Literal["direct", "lateral"]


@dataclass(frozen=True)
class Equilibration(Preconditioner):
    """D^2_ij = r_i + c_j + eps, with r and c the row and column 2-norms of the current gradient.

    ``M / D^2`` has entries of at most 1/2 when M is that gradient. Matrices with ``min(m, n) <= threshold``,
    vectors and scalars keep their own coordinates. No state.

    ``mixing="lateral"`` rolls the gradient's columns by ``shift`` before the division by the norms of the
    un-rolled gradient and rolls the result back, which is D^2_ij = r_i + c_(j + shift).
    ``mixing="direct"`` rolls before the norms too: row norms do not change and column norms move with their
    column, so it is exactly no mixing.

    ``axis="rows"`` or ``"columns"`` uses r or c alone (row- or column-normalisation).
    """

    threshold: int = 16
    eps: float = 1e-8
    mixing: Mixing | None = None
    shift: int = 7
    axis: Literal["both", "rows", "columns"] = "both"

    def __post_init__(self) -> None:
        if self.mixing not in (None, "direct", "lateral"):
            raise ValueError(f"mixing must be None, 'direct' or 'lateral', got {self.mixing!r}")
        if self.axis not in ("both", "rows", "columns"):
            raise ValueError(f"axis must be 'both', 'rows' or 'columns', got {self.axis!r}")
        if self.threshold < 0:
            raise ValueError(f"threshold must be >= 0, got {self.threshold!r}")

    def hypers(self) -> dict[str, Any]:
        """Return ``eps``."""
        return {"eps": self.eps}

    def for_shape(self, shape: Size) -> Preconditioner:
        """Return the identity for tensors that are not matrices or too thin for their norms to inform."""
        if len(shape) < 2 or min(shape[0], shape[1:].numel()) <= self.threshold:
            return Identity()
        return self

    def prepare(
        self, grad: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]
    ) -> Coordinates:
        """Return the coordinates of the current gradient's row and column lengths."""
        rows = None if self.axis == "columns" else length(grad, -1)
        columns = None if self.axis == "rows" else length(grad, -2)
        return self.coordinates(rows, columns, hypers["eps"], grad.dtype)

    def coordinates(
        self, rows: Tensor | None, columns: Tensor | None, eps: float | Tensor, dtype: torch.dtype
    ) -> Coordinates:
        """Return the coordinates for row lengths r (k, m, 1) and column lengths c (k, 1, n).

        One that ``axis`` does not use is None.
        """
        if columns is not None and self.mixing == "lateral":
            columns = torch.roll(columns, -self.shift, -1)
        if rows is None:
            assert columns is not None
            d_squared = columns.to(dtype) + eps
        else:
            d_squared = rows.to(dtype) + eps
            if columns is not None:
                d_squared = d_squared + columns.to(dtype)
        if isinstance(eps, Tensor) or eps == 0:  # a zero row and column: 0 / 0 = 0
            d_squared = torch.where(d_squared > 0, d_squared, float("inf"))
        return Scaling(d_squared)
