"""Polar factors by odd quintic polynomials: only matrix products, no decomposition.

One step maps every singular value s of X to a s + b s^3 + c s^5 and leaves the singular vectors alone:

    X <- a X + (b A + c A^2) X,   A = X X^T        (X (b A + c A^2), A = X^T X, for a tall X)

Every product but the one with X itself is symmetric. Nothing waits for the device, and no branch depends on
what the matrix holds.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steepest.linalg.products import multiply, multiply_add, symmetric_multiply, symmetric_multiply_add
from steepest.linalg.quintics import Quintic


def iterate(x: Tensor, schedule: Sequence[Quintic], out: Tensor | None = None) -> Tensor:
    """Apply the polynomials to X itself. Singular values of `x` must be at most about one.

    Cost: `steps * (2 s^2 l + s^3)` multiply-adds with s the short and l the long side, of which
    `steps * (s^2 l + s^3)` are symmetric products.

    Args:
        x: `(m, n)` or `(k, m, n)`, overwritten; tall matrices are multiplied from the right, so nothing is
            transposed.
        schedule: coefficients (a, b, c) of each step.
        out: where the result is to be, if not in a buffer of its own.
    """
    wide = x.shape[-2] <= x.shape[-1]
    gram, poly = _square(x, 2)
    spare = torch.empty_like(x)
    for i, (a, b, c) in enumerate(schedule):
        target = out if out is not None and i == len(schedule) - 1 else spare
        symmetric_multiply(*_gram_factors(x, wide), out=gram)
        symmetric_multiply_add(gram, gram, gram, out=poly, beta=b, alpha=c)
        if x.dtype in (torch.bfloat16, torch.float16):  # a on the diagonal would be rounded with the rest
            multiply_add(x, *_sides(poly, x, wide), out=target, beta=a)
        else:
            poly.diagonal(dim1=-2, dim2=-1).add_(a)
            multiply(*_sides(poly, x, wide), out=target)
        x, spare = target, x
    return x


def iterate_gram(
    x: Tensor, schedule: Sequence[Quintic], out: Tensor | None = None, *, rounding: float = 0.05
) -> Tensor:
    """Apply the same polynomials to the short-side Gram matrix: result = Q X with Q their product.

    From A = X X^T and Q = I: P = a I + b A + c A^2, Q <- P Q, A <- P A P. The long side is met twice for a
    whole run of steps instead of twice for each: `2 s^2 l + (4 steps - 3) s^3` multiply-adds, of which all
    but X's and Q's products, `s^2 l + (3 steps - 2) s^3`, are symmetric.

    A has lost singular values below sqrt(eps), and the slopes at zero magnify what rounding left in their
    place; before that reaches `rounding`, X is replaced by Q X and the Gram matrix formed anew. In float32,
    5 % is reached first in the seventh step of `NEWTON_SCHULZ` and `MINIMAX` and the sixth of
    `POLAR_EXPRESS`; in bfloat16 in nearly every step, so that nothing would be gained.

    Args:
        x, schedule, out: as for `iterate`; `x` is not overwritten.
        rounding: bound on the magnified rounding error of the Gram matrix.
    """
    wide = x.shape[-2] <= x.shape[-1]
    eps = torch.finfo(x.dtype).eps
    gram, poly, q, spare = _square(x, 4)
    begun, growth = False, 1.0
    for i, (a, b, c) in enumerate(schedule):
        if begun and eps * growth**2 > rounding:
            x = multiply(*_sides(q if wide else q.mT, x, wide), out=torch.empty_like(x))
            begun, growth = False, 1.0
        if not begun:
            symmetric_multiply(*_gram_factors(x, wide), out=gram)
        symmetric_multiply_add(gram, gram, gram, out=poly, beta=b, alpha=c)
        poly.diagonal(dim1=-2, dim2=-1).add_(a)
        if begun:
            # In full: P and Q commute only up to the rounding of all steps so far, magnified by the slopes,
            # and mirroring one half would turn that into an error of the result.
            q, spare = multiply(poly.mT, q, out=spare), q
        else:
            q.copy_(poly.mT)
            begun = True
        if i < len(schedule) - 1:
            # P is a polynomial of this very A: they commute up to the rounding of one product. P is symmetric
            # to rounding only; transposed once, as for Q, it leaves A the Gram matrix of Q X all the same.
            symmetric_multiply(gram, poly, out=spare)
            symmetric_multiply(poly.mT, spare, out=gram)
        growth *= a
    return multiply(*_sides(q if wide else q.mT, x, wide), out=torch.empty_like(x) if out is None else out)


def _square(x: Tensor, count: int) -> tuple[Tensor, ...]:
    """`count` buffers for products of the short side."""
    side = min(x.shape[-2:])
    return tuple(x.new_empty((*x.shape[:-2], side, side)) for _ in range(count))


def _gram_factors(x: Tensor, wide: bool) -> tuple[Tensor, Tensor]:
    return (x, x.mT) if wide else (x.mT, x)


def _sides(square: Tensor, x: Tensor, wide: bool) -> tuple[Tensor, Tensor]:
    return (square, x) if wide else (x, square)
