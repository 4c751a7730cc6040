"""Norms and divisions that neither overflow nor divide by zero, for stacks of matrices (k, m, n)."""

from __future__ import annotations

import torch
from torch import Tensor


def length(x: Tensor, dim: int | tuple[int, ...] = (-2, -1)) -> Tensor:
    """Return the Euclidean norm along ``dim``, kept as size 1, in float64.

    Float64 accumulation keeps the squares of float32 entries from overflowing or vanishing. Devices
    without float64 (MPS) get the dtype of ``x``.
    """
    wide = x.dtype if x.device.type == "mps" else torch.float64
    return torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=wide)


def divide(x: Tensor, size: Tensor) -> Tensor:
    """Return ``x / size`` in the dtype of ``x`` with 0 / 0 = 0, where ``size`` is a norm of ``x``."""
    return x / torch.where(size > 0, size, 1.0).to(x.dtype)


def inner(x: Tensor, y: Tensor) -> Tensor:
    """Return the inner product of each pair of matrices, shape (..., 1, 1)."""
    return (x * y).sum(dim=(-2, -1), keepdim=True)
