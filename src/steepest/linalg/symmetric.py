"""Eigendecomposition of symmetric matrices that does not give up: a chain of attempts, told to the caller."""

from typing import NamedTuple

import torch
from torch import Tensor

from steepest.linalg.scaling import all_finite, power_of_two

LinAlgError = torch.linalg.LinAlgError  # pyright: ignore[reportPrivateImportUsage]

# Relative to the largest entry. The first is at the level of float64 rounding for a thousand rows.
_JITTERS = (1e-13, 1e-7)


class SymmetricEigen(NamedTuple):
    """Result of `symmetric_eigen`."""

    values: Tensor
    """Eigenvalues, `(..., d)`, ascending. NaN where `failed`."""
    vectors: Tensor
    """Eigenvectors in columns, `(..., d, d)`. NaN where `failed`."""
    failed: Tensor
    """`(...)` bool: no attempt succeeded, or the matrix has a NaN or an infinity."""
    retried: Tensor
    """`(...)` bool: the first attempt did not succeed (includes `failed`)."""


def _attempt(a: Tensor) -> tuple[Tensor, Tensor] | None:
    try:
        values, vectors = torch.linalg.eigh(a)
    except LinAlgError:
        return None
    # Terms are at most 2 d and 1 for a matrix scaled to entries below two: their sum cannot overflow.
    return (values, vectors) if (values.sum() + vectors.sum()).isfinite() else None


def _retry(a: Tensor) -> tuple[Tensor, Tensor] | None:
    """One matrix, in float64, then with a growing ramp on its diagonal, which parts equal eigenvalues."""
    a = a.double()
    ramp = torch.linspace(1, 2, a.shape[-1], dtype=a.dtype, device=a.device).diag()
    for jitter in (0.0, *_JITTERS):
        found = _attempt(a + jitter * a.abs().max() * ramp)
        if found is not None:
            return found
    return None


@torch.no_grad()
def symmetric_eigen(a: Tensor) -> SymmetricEigen:
    """Eigenvalues and eigenvectors of symmetric matrices: `A = V diag(w) V^T`.

    The whole batch is tried in the dtype of `a`. If that raises or gives a non-finite number, each matrix is
    tried alone, in its own dtype, in float64, and in float64 with a diagonal ramp of 1e-13 and 1e-7 times its
    largest entry. A matrix with a NaN or an infinity fails without disturbing the others. Matrices are scaled
    by a power of two first, so entries of 1e-30 and 1e+30 are as good as entries of one.

    Reads one flag back from the device, as `torch.linalg.eigh` itself does.

    Args:
        a: `(..., d, d)`, float32 or float64; only the lower triangle is read by the eigensolver.
    """
    lead, d = a.shape[:-2], a.shape[-1]
    if a.numel() == 0:
        nothing = torch.zeros(lead, dtype=torch.bool, device=a.device)
        return SymmetricEigen(a.new_zeros(a.shape[:-1]), a.new_zeros(a.shape), nothing, nothing)
    a = a.reshape(-1, d, d)
    failed = ~all_finite(a)
    retried = failed.clone()
    a = a.masked_fill(failed[:, None, None], 0)
    scale = power_of_two(a)
    a = a / scale
    found = _attempt(a)
    if found is None:
        values, vectors = a.new_empty(a.shape[:-1]), torch.empty_like(a)
        for i, matrix in enumerate(a):
            alone = _attempt(matrix) if len(a) > 1 else None
            if alone is None:
                retried[i] = True
                alone = _retry(matrix)
            if alone is None:
                failed[i] = True
            else:
                values[i], vectors[i] = alone
    else:
        values, vectors = found
    nan = float("nan")
    values = (values * scale[..., 0]).masked_fill(failed[:, None], nan)
    vectors = vectors.masked_fill(failed[:, None, None], nan)
    return SymmetricEigen(
        values.reshape(*lead, d), vectors.reshape(*lead, d, d), failed.reshape(lead), retried.reshape(lead)
    )
