"""Norms and divisions that neither overflow nor divide by zero, for stacks (k, m, n); numbers as tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def length(x: Tensor, dim: int | tuple[int, ...] = (-2, -1)) -> Tensor:
    """Return the Euclidean norm along ``dim``, kept as size 1, in float64.

    No square of an entry overflows or vanishes: they are summed in float64, or on the CPU, where that is
    ten times slower along columns, in units of the largest entry. Devices without float64 (MPS) get the
    dtype of ``x``.
    """
    wide = x.dtype if x.device.type == "mps" else torch.float64
    if x.device.type != "cpu" or not x.numel():
        return torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=wide)
    largest = torch.maximum(x.amax(dim, keepdim=True), -x.amin(dim, keepdim=True))
    largest = largest.clamp_min_(torch.finfo(x.dtype).tiny)
    return (x / largest).square_().sum(dim, keepdim=True).sqrt_().to(wide) * largest


def divide(x: Tensor, size: Tensor) -> Tensor:
    """Return ``x / size`` in the dtype of ``x`` with 0 / 0 = 0, where ``size`` is a norm of ``x``."""
    return x / torch.where(size > 0, size, 1.0).to(x.dtype)


def inner(x: Tensor, y: Tensor) -> Tensor:
    """Return the inner product of each pair of matrices, shape (..., 1, 1)."""
    return (x * y).sum(dim=(-2, -1), keepdim=True)


def as_tensor(value: Any) -> Tensor:
    """Return a tensor as it is and a number on the CPU; torch's own goes by the default device."""
    return value if isinstance(value, Tensor) else torch.tensor(value, device="cpu")
