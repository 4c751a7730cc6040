"""Eigenvector bases of symmetric matrices: computed anew, or followed cheaply by one orthogonal iteration."""

from typing import NamedTuple

import torch
from torch import Tensor

from steepest.linalg.fallback import Robust, check_same_shape, check_square, keep_where_not_finite
from steepest.linalg.householder import orthonormalized
from steepest.linalg.precision import at_least_float32
from steepest.linalg.scaling import all_finite, largest_entry, power_of_two, readable
from steepest.linalg.symmetric import symmetric_eigen

_SAFE = 2.0**-40, 2.0**40
"""Scales between which neither a product with a basis nor the squares of its entries leave float32."""


@torch.no_grad()
def eigenbasis(a: Tensor, previous: Tensor | None = None) -> Robust:
    """Orthonormal eigenvectors of each symmetric matrix, in columns, by descending eigenvalue.

    The chain of attempts is that of `symmetric_power`: the dtype of `a`, float64, jitter, then `previous`.
    Signs of the columns, and the basis of a repeated eigenvalue, are whatever the eigensolver returns.

    Args:
        a: `(..., d, d)`, real floating point; only the lower triangle decides.
        previous: `(..., d, d)`, kept where everything failed. None: the identity.

    Returns:
        `Robust`; its value is float64 for float64 input and float32 otherwise.

    Raises:
        ValueError: `a` is not square or `previous` has another shape.
        TypeError: `a` is not real floating point.

    Example:
        >>> import torch
        >>> from steepest.linalg import eigenbasis
        >>> eigenbasis(torch.diag(torch.tensor([1.0, 3.0]))).value.abs().tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    check_square("a", a)
    check_same_shape("previous", previous, a)
    eigen = symmetric_eigen(a.to(at_least_float32(a.dtype)))
    return keep_where_not_finite(eigen.vectors.flip(-1), previous, eigen.retried)


class Refreshed(NamedTuple):
    """Result of `refresh_basis`."""

    value: Tensor
    """The new basis, `(..., d, d)`."""
    permutation: Tensor
    """`(..., d)` int64: column j of the new basis continues column `permutation[j]` of the old one."""
    kept: Tensor
    """`(...)` bool: the new basis was not finite and the old one was kept."""


@torch.no_grad()
def refresh_basis(a: Tensor, q: Tensor, *, sort: bool = False) -> Refreshed:
    """One step of orthogonal iteration, `Q <- QR(A Q)`: an old eigenbasis follows a slowly changing matrix.

    With `sort`, the columns of Q are first put in descending order of `diag(Q^T A Q)`, and whatever is stored
    along that axis must be permuted alike (`v.gather` or `v.index_select` with `permutation`). Without it the
    permutation is the identity. QR leaves the signs of columns free.

    A zero matrix says nothing about its eigenvectors and leaves Q as it is. Where the result is not finite, Q
    is kept, unpermuted. Nothing is read back from the device. About half the time of `eigenbasis` on a CPU;
    not a replacement for it at the start, as convergence goes with the ratio of neighbouring eigenvalues.

    Args:
        a: `(..., d, d)`, real floating point, symmetric.
        q: `(..., d, d)`, orthonormal columns.
        sort: reorder the columns first (SOAP does, KL-Shampoo does not).

    Returns:
        `Refreshed`; its value is float64 if `a` or `q` is, else float32.

    Raises:
        ValueError: `a` is not square or `q` has another shape.
        TypeError: `a` or `q` is not real floating point.

    Example:
        >>> import torch
        >>> from steepest.linalg import refresh_basis
        >>> new = refresh_basis(torch.diag(torch.tensor([1.0, 3.0])), torch.eye(2), sort=True)
        >>> new.value.abs().tolist(), new.permutation.tolist()
        ([[0.0, 1.0], [1.0, 0.0]], [1, 0])
    """
    check_square("a", a)
    check_square("q", q)
    check_same_shape("q", q, a)
    dtype = at_least_float32(torch.promote_types(a.dtype, q.dtype))
    a, q = a.to(dtype), q.to(dtype)
    order = torch.arange(a.shape[-1], device=a.device).expand(a.shape[:-1])
    if a.numel() == 0:
        return Refreshed(q, order, torch.zeros(a.shape[:-2], dtype=torch.bool, device=a.device))
    scale = power_of_two(a)
    if not (readable(a) and bool(((scale > _SAFE[0]) & (scale < _SAFE[1])).all())):
        a = a / scale
    image = _product(a, q)
    by_size = order
    if sort:
        by_size = (q * image).sum(-2).argsort(dim=-1, descending=True, stable=True)
        image = image.gather(-1, by_size[..., None, :].expand_as(image))
    new = orthonormalized(image)
    kept = ~(all_finite(new) & all_finite(image))
    unchanged = kept | (largest_entry(a)[..., 0, 0] == 0)
    if readable(unchanged) and not bool(unchanged.any()):
        return Refreshed(new, by_size, kept)
    value = torch.where(unchanged[..., None, None], q, new)
    return Refreshed(value, torch.where(unchanged[..., None], order, by_size), kept)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a @ b`` for stacks; a single pair goes to the faster product of two matrices."""
    return torch.mm(a[0], b[0])[None] if a.ndim == 3 and len(a) == 1 else a @ b
