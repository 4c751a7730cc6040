"""Matrices with known singular values."""

import torch
from torch import Tensor


def with_singular_values(
    shape: tuple[int, int], values: Tensor, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """X = U diag(values) V^T and its polar factor over the non-zero values, both built in float64."""
    generator = torch.Generator().manual_seed(seed)
    m, n = shape
    k = len(values)
    u = torch.linalg.qr(torch.randn(m, k, dtype=torch.float64, generator=generator)).Q
    v = torch.linalg.qr(torch.randn(n, k, dtype=torch.float64, generator=generator)).Q
    values = values.double()
    return ((u * values) @ v.T).to(dtype), (u * (values > 0)) @ v.T


def gaussian(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
