"""Matrix products into buffers, with half the work saved where the result is known to be symmetric.

A symmetric result is computed in rows of blocks up to the diagonal and mirrored. The triangle has
(1 + 1/b) / 2 of the operations with b blocks a side. All functions take (m, n) or (k, m, n).
"""

from __future__ import annotations

import torch
from torch import Tensor

# Rows of a block. Measured with benchmarks/polar_table.py --products: on two cores of a 2.5 GHz Xeon with
# AVX-512, float32, the triangle in blocks of 128 rows takes 0.83 of the time of the whole product for side
# 256 and 0.76 for side 512, mirroring included; blocks of 64 and of 256 rows are slower, and for side 128 so
# is any triangle. On CUDA, several small kernels are slower than one large one.
BLOCK_ROWS = 128


def multiply(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """`a @ b` in `out`, which must not be one of them."""
    return torch.mm(a, b, out=out) if a.ndim == 2 else torch.bmm(a, b, out=out)


def multiply_add(
    c: Tensor, a: Tensor, b: Tensor, out: Tensor, *, beta: float = 1.0, alpha: float = 1.0
) -> Tensor:
    """`beta c + alpha a @ b` in `out`, which must not be `a` or `b`."""
    call = torch.addmm if a.ndim == 2 else torch.baddbmm
    return call(c, a, b, beta=beta, alpha=alpha, out=out)


def symmetric_multiply(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """`a @ b` in `out`, for factors whose product is symmetric: `b = a.mT`, or two that commute."""
    if not _in_halves(out):
        return multiply(a, b, out)
    for top, end in _block_rows(out):
        multiply(a[..., top:end, :], b[..., :end], out[..., top:end, :end])
    return _mirror(out)


def symmetric_multiply_add(
    c: Tensor, a: Tensor, b: Tensor, out: Tensor, *, beta: float = 1.0, alpha: float = 1.0
) -> Tensor:
    """`beta c + alpha a @ b` in `out`, for symmetric `c` and `a @ b`."""
    if not _in_halves(out):
        return multiply_add(c, a, b, out, beta=beta, alpha=alpha)
    for top, end in _block_rows(out):
        rows, left = slice(top, end), slice(0, end)
        multiply_add(
            c[..., rows, left], a[..., rows, :], b[..., left], out[..., rows, left], beta=beta, alpha=alpha
        )
    return _mirror(out)


def _in_halves(out: Tensor) -> bool:
    return (
        out.device.type == "cpu"
        and out.dtype in (torch.float32, torch.float64)
        and out.shape[-1] >= 2 * BLOCK_ROWS
    )


def _block_rows(out: Tensor) -> list[tuple[int, int]]:
    side = out.shape[-1]
    return [(top, min(top + BLOCK_ROWS, side)) for top in range(0, side, BLOCK_ROWS)]


def _mirror(out: Tensor) -> Tensor:
    """Copy what is left of the diagonal blocks to the right of them."""
    for top, end in _block_rows(out)[:-1]:
        out[..., top:end, end:] = out[..., end:, top:end].mT
    return out
