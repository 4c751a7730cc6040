"""What several rules share: the matrix view, polar factors, shape scales, Nesterov."""

import math

import torch
from torch import Tensor

QUINTIC = [(3.4445, -4.7750, 2.0315)] * 5
POLAR_EXPRESS = [
    (8.1566, -22.4833, 15.8788),
    (4.0429, -2.8089, 0.5000),
    (3.8917, -2.7725, 0.5061),
    (3.2858, -2.3681, 0.4645),
    (2.3465, -1.7098, 0.4232),
]


def as_matrix(x: Tensor) -> Tensor:
    """Read a tensor with more than two dimensions as (size(0), rest)."""
    return x.reshape(x.shape[0], -1) if x.ndim > 2 else x


def msign(x: Tensor) -> Tensor:
    """U V^T from the thin SVD; zero for zero."""
    if not x.any():
        return torch.zeros_like(x)
    u, _, vh = torch.linalg.svd(x, full_matrices=False)
    return u @ vh


def polynomial_polar(x: Tensor, coefficients: list[tuple[float, float, float]], margin: float) -> Tensor:
    """Odd quintics X <- a X + (b A + c A^2) X with A = X X^T, on the wide orientation."""
    if x.shape[0] > x.shape[1]:
        return polynomial_polar(x.T, coefficients, margin).T
    norm = x.norm()
    if norm == 0:
        return torch.zeros_like(x)
    x = x / (margin * norm)
    for a, b, c in coefficients:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def orthogonalize(x: Tensor, orthogonalizer: str) -> Tensor:
    """The polar factor of x, exact or by five polynomial steps."""
    if orthogonalizer == "svd":
        return msign(x)
    if orthogonalizer == "newton_schulz":
        return polynomial_polar(x, QUINTIC, 1.0)
    if orthogonalizer == "polar_express":
        return polynomial_polar(x, POLAR_EXPRESS, 1.02)
    raise ValueError(orthogonalizer)


class Seen:
    """The statistic that a refresh works on: as it is, or with ``lag`` as it was at the refresh before."""

    def __init__(self, lag: bool) -> None:
        self.lag = lag
        self.before: Tensor | None = None

    def __call__(self, now: Tensor) -> Tensor:
        before, self.before = self.before, now.clone()
        return before if self.lag and before is not None else now


def shape_scale(scale: str | None, m: int, n: int) -> float:
    """The length of a unit spectral step for an m x n matrix."""
    if scale is None:
        return 1.0
    return {
        "original": math.sqrt(max(1.0, m / n)),
        "match_rms_adamw": 0.2 * math.sqrt(max(m, n)),
        "spectral": math.sqrt(m / n),
        "unit_rms": math.sqrt(max(m, n)),
    }[scale]
