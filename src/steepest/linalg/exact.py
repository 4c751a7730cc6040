"""The polar factor by decomposition: exact to rounding, rank decided by a tolerance."""

import math

import torch
from torch import Tensor

from steepest.linalg.newton_schulz import iterate
from steepest.linalg.quintics import newton_schulz_schedule
from steepest.linalg.scaling import all_finite, power_of_two, unit_frobenius
from steepest.linalg.symmetric import LinAlgError, symmetric_eigen


def rank_tolerance(m: int, n: int, dtype: torch.dtype) -> float:
    """`4 sqrt(max(m, n)) eps`: singular values below this fraction of the largest count as zero.

    Rounding every entry of a low-rank matrix to `dtype` leaves singular values of about `eps` times the
    largest; the usual `max(m, n) eps` would also delete directions that a gradient in float32 does have.
    """
    return 4 * math.sqrt(max(m, n)) * torch.finfo(dtype).eps


def _from_svd(x: Tensor, rtol: float) -> Tensor:
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    kept = (s > rtol * s[..., :1]).to(x.dtype)
    return (u * kept[..., None, :]) @ vh


def _from_gram(x: Tensor, rtol: float) -> Tensor:
    """`(X X^T)^(-1/2) X` on the short side; NaN where the eigensolver fails."""
    wide = x.shape[-2] <= x.shape[-1]
    values, vectors, _, _ = symmetric_eigen(x @ x.mT if wide else x.mT @ x)
    kept = values > rtol**2 * values[..., -1:]
    roots = torch.where(kept, values, 1).rsqrt() * kept
    root = (vectors * roots[..., None, :]) @ vectors.mT
    return root @ x if wide else x @ root


def polar_by_decomposition(x: Tensor) -> Tensor:
    """`U V^T` of each matrix, over the singular values above `rank_tolerance`; zero for zero.

    float32 input: eigenvalues of the short-side Gram matrix **in float64**, which resolves every singular
    value that float32 can tell from zero, at about the cost of five Newton-Schulz steps on a CPU. float64
    input: SVD; if it fails, the Gram matrix too. If that fails even with jitter: five Newton-Schulz steps in
    float64, not exact but a descent direction. A matrix with a NaN or an infinity gives NaN and leaves the
    others alone.

    Args:
        x: `(k, m, n)` or `(m, n)`, float32 or float64, not empty.

    Returns:
        float64, shape of `x`.
    """
    rtol = rank_tolerance(x.shape[-2], x.shape[-1], x.dtype)
    finite = all_finite(x)[..., None, None]
    x, direct = x.masked_fill(~finite, 0).double(), x.dtype == torch.float64
    x = x / power_of_two(x)
    result = None
    if direct:
        try:
            result = _from_svd(x, rtol)
        except LinAlgError:
            result = None
    if result is None:
        result = _from_gram(x, rtol)
    iterated = ~all_finite(result)[..., None, None]
    if iterated.any():
        result = torch.where(iterated, iterate(unit_frobenius(x), newton_schulz_schedule(5)), result)
    return result.masked_fill(~finite, float("nan"))
