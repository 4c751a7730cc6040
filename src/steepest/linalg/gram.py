"""Sums of outer products, updated in place: half of a symmetric matrix determines the other."""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST = 384
"""Below this side, cutting a product into blocks costs more than the entries it saves (CPU, float32)."""


@torch.no_grad()
def add_gram_(a: Tensor, x: Tensor, keep: float, weight: float) -> Tensor:
    """Set ``A <- keep A + weight X X^T`` in place, for one symmetric matrix, and return it.

    On the CPU blocks above the diagonal are copies of those below it, halved again and again: for a side of
    many blocks little more than half the multiplications of a general product. Elsewhere one product.

    Args:
        a: ``(d, d)``, symmetric. With ``keep = 0`` its entries are not read.
        x: ``(d, e)``, of the dtype of ``a``.
        keep, weight: what is kept, what is added.
    """
    d = a.shape[-1]
    if d < 2 * _SMALLEST or a.device.type != "cpu":
        return a.addmm_(x, x.mT, beta=keep, alpha=weight)
    half = (d // 2 + 63) // 64 * 64
    add_gram_(a[:half, :half], x[:half], keep, weight)
    add_gram_(a[half:, half:], x[half:], keep, weight)
    below = a[half:, :half].addmm_(x[half:], x[:half].mT, beta=keep, alpha=weight)
    a[:half, half:].copy_(below.mT)
    return a
