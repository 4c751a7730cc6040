"""Scale matrices to order one without rounding, so that no later product overflows or underflows."""

import torch
from torch import Tensor


def power_of_two(x: Tensor) -> Tensor:
    """Largest power of two that is at most the largest |entry| of each matrix.

    Dividing by it is exact (up to entries that become subnormal), so a matrix and its multiple by a power of
    two give bitwise the same quotient. Nothing is copied to the host.

    Args:
        x: `(..., m, n)`, float32 or float64, not empty.

    Returns:
        `(..., 1, 1)`. A zero matrix gives the smallest normal number; a matrix with a NaN or an infinity
        gives NaN, which the quotient carries on.
    """
    largest = torch.linalg.vector_norm(x, float("inf"), dim=(-2, -1), keepdim=True)
    largest = largest.clamp_min(torch.finfo(x.dtype).tiny)
    return largest / (2 * torch.frexp(largest).mantissa)


def unit_frobenius(x: Tensor, margin: float = 1.0) -> Tensor:
    """`x / (margin |x|_F)` for each matrix, zero for a zero matrix, at any scale the dtype can hold.

    Args:
        x: `(..., m, n)`, float32 or float64, not empty.
        margin: the Frobenius norm of the result is `1 / margin`.
    """
    scaled = x / power_of_two(x)
    norm = torch.linalg.vector_norm(scaled, dim=(-2, -1), keepdim=True).mul_(margin)
    return scaled.div_(norm.clamp_min_(torch.finfo(x.dtype).tiny))
