"""Scion and its clipped form: unit balls with dimension factors, for one tensor or a whole network."""

import math

import torch
from torch import Tensor

from references.common import as_matrix, orthogonalize


def _unit(x: Tensor, dim: int) -> Tensor:
    norm = (x * x).sum(dim=dim, keepdim=True).sqrt()
    return torch.where(norm > 0, x / norm, torch.zeros_like(x))


def scion_direction(d: Tensor, norm: str = "auto", orthogonalizer: str = "newton_schulz") -> Tensor:
    """u(d) under the named norm."""
    if norm == "auto":
        norm = "bias_rms" if d.ndim < 2 else "spectral" if d.ndim == 2 else "spectral_conv"
    if norm == "bias_rms":
        rms = (d * d).mean().sqrt()
        return d / rms if rms > 0 else torch.zeros_like(d)
    if norm == "spectral_conv":
        out_channels, in_channels = d.shape[:2]
        kernel = math.prod(d.shape[2:])
        polar = orthogonalize(as_matrix(d), orthogonalizer).reshape(d.shape)
        return math.sqrt(out_channels / in_channels) / kernel * polar
    x = as_matrix(d)
    m, n = x.shape
    if norm == "spectral":
        u = math.sqrt(m / n) * orthogonalize(x, orthogonalizer)
    elif norm == "spectral_max":
        u = max(1.0, math.sqrt(m / n)) * orthogonalize(x, orthogonalizer)
    elif norm == "sign":
        u = x.sign() / n
    elif norm == "sign_raw":
        u = x.sign()
    elif norm == "col":
        u = math.sqrt(m) * _unit(x, dim=0)
    elif norm == "col_normalized":
        u = math.sqrt(m) / n * _unit(x, dim=0)
    elif norm == "row":
        u = _unit(x, dim=1) / math.sqrt(n)
    elif norm == "row_raw":
        u = _unit(x, dim=1)
    else:
        raise ValueError(norm)
    return u.reshape(d.shape)


def scion(
    w0: Tensor,
    grads: list[Tensor],
    lr: float,
    momentum: float = 0.9,
    norm: str = "auto",
    radius: float = 1.0,
    constrained: bool = False,
    orthogonalizer: str = "newton_schulz",
) -> list[Tensor]:
    """W <- W - lr radius u(d), or (1 - lr) W - lr radius u(d)."""
    w, d, iterates = w0.clone(), torch.zeros_like(w0), []
    for g in grads:
        d = momentum * d + (1 - momentum) * g
        step = lr * radius * scion_direction(d, norm, orthogonalizer)
        w = (1 - lr) * w - step if constrained else w - step
        iterates.append(w)
    return iterates


def clipped_scion(
    w0: list[Tensor],
    grads: list[list[Tensor]],
    lr: float,
    rho: float,
    momentum: float = 0.9,
    norms: list[str] | None = None,
    radii: list[float] | None = None,
    constrained: bool = False,
    orthogonalizer: str = "newton_schulz",
) -> list[list[Tensor]]:
    """One eta = min(1, S / rho) for the whole network; ``grads[t][l]`` belongs to weight l at step t."""
    norms = norms or ["auto"] * len(w0)
    radii = radii or [1.0] * len(w0)
    weights, averages, iterates = [w.clone() for w in w0], [torch.zeros_like(w) for w in w0], []
    for current in grads:
        averages = [momentum * d + (1 - momentum) * g for d, g in zip(averages, current, strict=True)]
        steps = [
            radius * scion_direction(d, norm, orthogonalizer)
            for d, norm, radius in zip(averages, norms, radii, strict=True)
        ]
        if constrained:
            steps = [w + s for w, s in zip(weights, steps, strict=True)]
        s_total = sum(float((d * s).sum()) for d, s in zip(averages, steps, strict=True))
        eta = min(1.0, s_total / rho)
        weights = [w - lr * eta * s for w, s in zip(weights, steps, strict=True)]
        iterates.append(weights)
    return iterates
