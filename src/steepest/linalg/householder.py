"""The orthogonal factor of a QR decomposition, blocked so that nearly all work is matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

_PANEL = 192
_SMALLEST = 768
"""Below this side LAPACK's own QR is as fast (CPU, float32)."""


@torch.no_grad()
def orthonormalized(a: Tensor) -> Tensor:
    """Return Q of ``A = Q R`` for each matrix of ``(..., d, d)``; R is not formed.

    ``torch.linalg.qr`` except for large matrices on the CPU. There, panels of columns are reduced by LAPACK,
    and their reflections ``I - V T V^T`` are applied to the rest, and multiplied together, as products:
    Q as orthonormal as LAPACK's in about two thirds of the time.

    Source:
        Schreiber and Van Loan, A Storage-Efficient WY Representation for Products of Householder
        Transformations, SIAM J. Sci. Stat. Comput. 10 (1989).
    """
    if a.device.type != "cpu" or a.shape[-1] < _SMALLEST:
        return torch.linalg.qr(a).Q
    d = a.shape[-1]
    return torch.stack([_blocked(one) for one in a.reshape(-1, d, d)]).reshape(a.shape)


def _blocked(a: Tensor) -> Tensor:
    a, d, panels = a.clone(), a.shape[-1], []
    for start in range(0, d, _PANEL):
        stop = min(start + _PANEL, d)
        v, t = _reflections(a[start:, start:stop])
        rest = a[start:, stop:]
        rest.addmm_(v, t.mT @ (v.mT @ rest), alpha=-1)
        panels.append((start, v, t))
    q = torch.eye(d, dtype=a.dtype, device=a.device)
    for start, v, t in reversed(panels):
        corner = q[start:, start:]
        corner.addmm_(v, t @ (v.mT @ corner), alpha=-1)
    return q


def _reflections(panel: Tensor) -> tuple[Tensor, Tensor]:
    """Return V and T of the product ``I - V T V^T`` of the panel's Householder reflections."""
    packed, tau = torch.geqrf(panel)
    v = packed.tril(-1)
    v.diagonal().fill_(1)
    # T^-1 is the upper triangle of V^T V with 1/tau on the diagonal; tau = 0 is no reflection.
    system = (v.mT @ v).triu(1).mul_(tau[:, None])
    return v, torch.linalg.solve_triangular(system, tau.diag(), upper=True, unitriangular=True)
