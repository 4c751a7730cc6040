"""Matrix products into buffers, with half the work saved where the result is known to be symmetric.

A symmetric result is computed in rows of blocks up to the diagonal and mirrored. The triangle has
(1 + 1/b) / 2 of the operations with b blocks a side. All functions take (m, n) or (k, m, n).
"""

from __future__ import annotations

import torch
from torch import Tensor

# From which side a triangle is the faster, and the rows of its blocks below and from side 1024. Measured with
# benchmarks/polar_table.py --products, one thread of a 2.5 GHz Xeon with AVX-512, float32: the triangle takes
# 1.07, 0.90, 0.85, 0.74 of the time of the whole product for sides 256, 384, 512, 768 in blocks of 128, and
# 0.89, 0.80, 0.83 for sides 1024, 1536, 2048 in blocks of 256, mirroring included. Blocks of 128 at side 1024
# take 1.3: their rows are a power of two apart and share cache lines. On CUDA, several small kernels are
# slower than one large one.
LEAST_SIDE = 384
_ROWS, _ROWS_FROM_1024 = 128, 256


def block_rows(side: int) -> int:
    """Rows of the blocks that a triangle of this side is computed in."""
    return _ROWS if side < 1024 else _ROWS_FROM_1024


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
    for top, end in _blocks(out):
        multiply(a[..., top:end, :], b[..., :end], out[..., top:end, :end])
    return _mirror(out)


def symmetric_multiply_add(
    c: Tensor, a: Tensor, b: Tensor, out: Tensor, *, beta: float = 1.0, alpha: float = 1.0
) -> Tensor:
    """`beta c + alpha a @ b` in `out`, for symmetric `c` and `a @ b`."""
    if not _in_halves(out):
        return multiply_add(c, a, b, out, beta=beta, alpha=alpha)
    for top, end in _blocks(out):
        rows, left = slice(top, end), slice(0, end)
        multiply_add(
            c[..., rows, left], a[..., rows, :], b[..., left], out[..., rows, left], beta=beta, alpha=alpha
        )
    return _mirror(out)


def _in_halves(out: Tensor) -> bool:
    """Whether to compute one triangle and mirror it."""
    return (
        out.device.type == "cpu"
        and out.dtype in (torch.float32, torch.float64)
        and out.shape[-1] >= LEAST_SIDE
        and not torch.compiler.is_compiling()  # which takes no part of a tensor as `out`
    )


def _blocks(out: Tensor) -> list[tuple[int, int]]:
    """First row of each block and the row after its last."""
    side = out.shape[-1]
    rows = block_rows(side)
    return [(top, min(top + rows, side)) for top in range(0, side, rows)]


def _mirror(out: Tensor) -> Tensor:
    """Copy what is left of the diagonal blocks to the right of them."""
    for top, end in _blocks(out)[:-1]:
        out[..., top:end, end:] = out[..., end:, top:end].mT
    return out
