"""Muon, MuAdam and MuAdam-SANIA: the spectral norm, plain and under a diagonal geometry."""

import torch
from torch import Tensor

from references.common import as_matrix, orthogonalize, shape_scale


def muon(
    w0: Tensor,
    grads: list[Tensor],
    lr: float,
    momentum: float = 0.95,
    nesterov: bool = True,
    weight_decay: float = 0.0,
    scale: str | None = "original",
    orthogonalizer: str = "newton_schulz",
) -> list[Tensor]:
    """W <- (1 - lr wd) W - lr scale msign(u), u the EMA momentum or its Nesterov form."""
    w, buffer, iterates = w0.clone(), torch.zeros_like(w0), []
    m, n = as_matrix(w0).shape
    for g in grads:
        buffer = momentum * buffer + (1 - momentum) * g
        u = momentum * buffer + (1 - momentum) * g if nesterov else buffer
        direction = orthogonalize(as_matrix(u), orthogonalizer).reshape(w.shape)
        w = (1 - lr * weight_decay) * w - lr * shape_scale(scale, m, n) * direction
        iterates.append(w)
    return iterates


def _diagonal_spectral(
    w0: Tensor,
    grads: list[Tensor],
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    scale: str | None,
    orthogonalizer: str,
    sania: bool,
) -> list[Tensor]:
    b1, b2 = betas
    w, m, v, iterates = w0.clone(), torch.zeros_like(w0), torch.zeros_like(w0), []
    rows, columns = as_matrix(w0).shape
    for t, g in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        m_hat = m / (1 - b1**t)
        correction = 1 - b2**t
        d_squared = v / correction + eps if sania else (v.sqrt() + eps) / correction**0.5
        d = d_squared.sqrt()
        direction = orthogonalize(as_matrix(m_hat / d), orthogonalizer).reshape(w.shape) / d
        w = (1 - lr * weight_decay) * w - lr * shape_scale(scale, rows, columns) * direction
        iterates.append(w)
    return iterates


def muadam(
    w0: Tensor,
    grads: list[Tensor],
    lr: float,
    betas: tuple[float, float] = (0.95, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    scale: str | None = "original",
    orthogonalizer: str = "newton_schulz",
) -> list[Tensor]:
    """u = msign(mhat / D) / D with D^2 = (sqrt(v) + eps) / sqrt(1 - b2^t)."""
    return _diagonal_spectral(w0, grads, lr, betas, eps, weight_decay, scale, orthogonalizer, sania=False)


def muadam_sania(
    w0: Tensor,
    grads: list[Tensor],
    lr: float,
    betas: tuple[float, float] = (0.95, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    scale: str | None = "original",
    orthogonalizer: str = "newton_schulz",
) -> list[Tensor]:
    """u = msign(mhat / D) / D with D^2 = v / (1 - b2^t) + eps."""
    return _diagonal_spectral(w0, grads, lr, betas, eps, weight_decay, scale, orthogonalizer, sania=True)
