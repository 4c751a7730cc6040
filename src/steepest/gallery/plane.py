"""A plane of matrices on which all norms of the library differ.

The matrices [[x, y], [y, x]] have singular values |x + y| and |x - y|, so that the unit balls of the plane
are a circle (Frobenius), a square (Max), a diamond (Spectral) and a larger circle (RowNorm, ColNorm). All
oracles map the plane to itself, so an optimizer that starts in it stays in it, and its path can be drawn.
"""

from __future__ import annotations

import torch
from torch import Tensor


def matrix(x: Tensor, y: Tensor) -> Tensor:
    """Return [[x, y], [y, x]] for coordinates of any equal shape."""
    return torch.stack([torch.stack([x, y], -1), torch.stack([y, x], -1)], -2)


def coordinates(w: Tensor) -> tuple[Tensor, Tensor]:
    """Return x and y of the nearest matrix of the plane."""
    return (w[..., 0, 0] + w[..., 1, 1]) / 2, (w[..., 0, 1] + w[..., 1, 0]) / 2
