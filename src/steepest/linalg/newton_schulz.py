"""Polar factors by odd quintic polynomials: only matrix products, no decomposition.

One step maps every singular value s of X to a s + b s^3 + c s^5 and leaves the singular vectors alone:

    X <- a X + (b A + c A^2) X,   A = X X^T        (X (b A + c A^2), A = X^T X, for a tall X)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Quintic = tuple[float, float, float]

# Largest slope at zero for a band around one. Source: K. Jordan et al., "Muon", 2024.
NEWTON_SCHULZ: Quintic = (3.4445, -4.7750, 2.0315)

# A minimax-optimal polynomial for each step. Source: Amsel et al., "The Polar Express", arXiv 2505.16932.
POLAR_EXPRESS: tuple[Quintic, ...] = (
    (8.1566, -22.4833, 15.8788),
    (4.0429, -2.8089, 0.5000),
    (3.8917, -2.7725, 0.5061),
    (3.2858, -2.3681, 0.4645),
    (2.3465, -1.7098, 0.4232),
)
POLAR_EXPRESS_MARGIN = 1.02

# How large the rounding error of the Gram matrix may become, magnified by the slopes at zero so far.
_GRAM_ERROR = 0.05


def newton_schulz_schedule(steps: int) -> list[Quintic]:
    """The same polynomial `steps` times."""
    return [NEWTON_SCHULZ] * steps


def polar_express_schedule(steps: int) -> list[Quintic]:
    """The first `steps` polynomials; the last one repeats after the fifth step."""
    return [*POLAR_EXPRESS[:steps], *[POLAR_EXPRESS[-1]] * (steps - len(POLAR_EXPRESS))]


def _fma(c: Tensor, a: Tensor, b: Tensor, beta: float, alpha: float = 1.0) -> Tensor:
    """`beta c + alpha a @ b` in one call."""
    return (torch.addmm if c.ndim == 2 else torch.baddbmm)(c, a, b, beta=beta, alpha=alpha)


def iterate(x: Tensor, schedule: Sequence[Quintic]) -> Tensor:
    """Apply the polynomials to X itself. Singular values of `x` must be at most about one.

    Cost: `steps * (2 s^2 l + s^3)` multiply-adds with s the short and l the long side.

    Args:
        x: `(m, n)` or `(k, m, n)`; tall matrices are multiplied from the right, so nothing is transposed.
        schedule: coefficients (a, b, c) of each step.
    """
    wide = x.shape[-2] <= x.shape[-1]
    for a, b, c in schedule:
        gram = x @ x.mT if wide else x.mT @ x
        poly = _fma(gram, gram, gram, beta=b, alpha=c)
        x = _fma(x, poly, x, beta=a) if wide else _fma(x, x, poly, beta=a)
    return x


def iterate_gram(x: Tensor, schedule: Sequence[Quintic]) -> Tensor:
    """Apply the same polynomials to the short-side Gram matrix: result = Q X with Q their product.

    With A_0 = X X^T: P = a I + b A + c A^2, Q <- P Q, A <- Q A_0 Q. The long side is met twice for a whole
    run of steps instead of twice for each, and `2 s^2 l + (4 steps - 3) s^3` beats `iterate` from l = 1.5 s.
    A_0 has lost singular values below sqrt(eps), and the slopes at zero magnify what rounding left in their
    place; before that reaches 5 %, X is replaced by Q X and the Gram matrix formed anew. In float32 this
    happens first in the seventh step of `NEWTON_SCHULZ` and the sixth of `POLAR_EXPRESS`.

    Args:
        x: `(m, n)` or `(k, m, n)`, as for `iterate`.
        schedule: coefficients (a, b, c) of each step.
    """
    wide = x.shape[-2] <= x.shape[-1]
    eps = torch.finfo(x.dtype).eps
    start = gram = q = None
    growth = 1.0
    for a, b, c in schedule:
        if q is None or start is None or eps * growth**2 > _GRAM_ERROR:
            x = x if q is None else q @ x if wide else x @ q.mT
            start = gram = x @ x.mT if wide else x.mT @ x
            q, growth = None, 1.0
        else:
            # q is symmetric up to rounding only, and without the transpose that rounding is magnified
            gram = q @ start @ q.mT
        poly = _fma(gram, gram, gram, beta=b, alpha=c)
        poly.diagonal(dim1=-2, dim2=-1).add_(a)
        q = poly if q is None else poly @ q
        growth *= a
    return x if q is None else q @ x if wide else x @ q.mT
