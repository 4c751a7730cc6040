"""Real powers of symmetric positive semi-definite matrices: what Shampoo and its relatives divide by."""

import math

import torch
from torch import Tensor

from steepest.linalg.fallback import Robust, check_same_shape, check_square, keep_where_not_finite
from steepest.linalg.precision import at_least_float32
from steepest.linalg.symmetric import symmetric_eigen


@torch.no_grad()
def symmetric_power(
    a: Tensor, exponent: float, eps: float = 0.0, *, previous: Tensor | None = None
) -> Robust:
    """`(A + eps I)^exponent` for each symmetric positive semi-definite matrix of a batch.

    From the eigenvalues w of A: `V diag((max(w, 0) + eps)^exponent) V^T`. `eps` is added to the eigenvalues
    as they are, however A is scaled. With `eps = 0` and a negative exponent, eigenvalues up to `d` times the
    rounding unit of the largest count as zero and stay zero (the power of the pseudo-inverse); a zero matrix
    gives zero.

    The eigenvalues carry an absolute error of about the rounding unit times the largest, so in float32 an
    `eps` below 1e-7 of the largest eigenvalue no longer decides what the null directions are divided by.

    Each matrix goes through a chain: eigendecomposition in its dtype, in float64, in float64 with a diagonal
    ramp of 1e-13 and 1e-7 of its largest entry; then `previous` is kept. A non-finite matrix, or a power that
    overflows, also keeps `previous`.

    Args:
        a: `(..., d, d)`, real floating point; only the lower triangle decides.
        exponent: any finite real number.
        eps: added to every eigenvalue, >= 0, in the units of `a`.
        previous: `(..., d, d)`, what to return where everything failed. None: the identity.

    Returns:
        `Robust`; its value is float64 for float64 input and float32 otherwise, symmetric to rounding.

    Raises:
        ValueError: `a` is not square, `previous` has another shape, `eps` < 0, or a number is not finite.
        TypeError: `a` is not real floating point.

    Example:
        >>> import torch
        >>> from steepest.linalg import symmetric_power
        >>> symmetric_power(torch.diag(torch.tensor([4.0, 0.0])), -0.5).value
        tensor([[0.5000, 0.0000],
                [0.0000, 0.0000]])
    """
    check_square("a", a)
    check_same_shape("previous", previous, a)
    if not math.isfinite(exponent):
        raise ValueError(f"exponent={exponent!r} is out of range: must be a finite number")
    if not (math.isfinite(eps) and eps >= 0):
        raise ValueError(f"eps={eps!r} is out of range: must be a finite number >= 0")
    eigen = symmetric_eigen(a.to(at_least_float32(a.dtype)))
    w = eigen.values.clamp_min(0)
    if eps > 0 or exponent >= 0:
        half = (w + eps) ** (exponent / 2)
    else:
        # Below the smallest normal number the power may overflow although the number is only rounding.
        info = torch.finfo(w.dtype)
        nonzero = w > (w[..., -1:] * (w.shape[-1] * info.eps)).clamp_min(info.tiny)
        half = torch.where(nonzero, w, 1) ** (exponent / 2) * nonzero
    factor = eigen.vectors * half[..., None, :]
    # As a product with its own transpose the result is positive semi-definite whatever the rounding.
    return keep_where_not_finite(factor @ factor.mT, previous, eigen.retried)


def inverse_root(a: Tensor, p: float, eps: float = 0.0, *, previous: Tensor | None = None) -> Robust:
    """`(A + eps I)^(-1/p)` for each symmetric positive semi-definite matrix of a batch.

    `p = 4` is Shampoo's factor for matrices, `p = 2` the one-sided factor and the one for vectors, `p = 1`
    the inverse; any real p > 0 is allowed. See `symmetric_power` for the rest.

    Raises:
        ValueError: `p` is not a finite number > 0, or as `symmetric_power`.

    Example:
        >>> import torch
        >>> from steepest.linalg import inverse_root
        >>> root = inverse_root(torch.diag(torch.tensor([16.0, 1.0])), 4)
        >>> root.value, root.fallbacks
        (tensor([[0.5000, 0.0000],
                [0.0000, 1.0000]]), 0)
    """
    if not (math.isfinite(p) and p > 0):
        raise ValueError(f"p={p!r} is out of range: must be a finite number > 0")
    return symmetric_power(a, -1 / p, eps, previous=previous)
