"""Diagonal geometry under the Frobenius norm, dual-scaled: Adam, Adagrad, MADGRAD, SANIA."""

from collections.abc import Callable

import torch
from torch import Tensor


def adam(
    w0: Tensor,
    grads: list[Tensor],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = True,
) -> list[Tensor]:
    """W <- W - lr mhat / (sqrt(vhat) + eps); decay decoupled (AdamW) or added to the gradient (Adam)."""
    b1, b2 = betas
    w, m, v, iterates = w0.clone(), torch.zeros_like(w0), torch.zeros_like(w0), []
    for t, g in enumerate(grads, start=1):
        if decoupled:
            w = (1 - lr * weight_decay) * w
        else:
            g = g + weight_decay * w
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        w = w - lr * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)
        iterates.append(w)
    return iterates


def adagrad(
    w0: Tensor, grads: list[Tensor], lr: float, eps: float = 1e-10, weight_decay: float = 0.0
) -> list[Tensor]:
    """W <- W - lr G / (sqrt(sum G^2) + eps), decay added to the gradient."""
    w, total, iterates = w0.clone(), torch.zeros_like(w0), []
    for g in grads:
        g = g + weight_decay * w
        total = total + g * g
        w = w - lr * g / (total.sqrt() + eps)
        iterates.append(w)
    return iterates


def adam_sania(
    w0: Tensor,
    grads: list[Tensor],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> list[Tensor]:
    """W <- (1 - lr wd) W - lr mhat / (vhat + eps)."""
    b1, b2 = betas
    w, m, v, iterates = w0.clone(), torch.zeros_like(w0), torch.zeros_like(w0), []
    for t, g in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        w = (1 - lr * weight_decay) * w - lr * (m / (1 - b1**t)) / (v / (1 - b2**t) + eps)
        iterates.append(w)
    return iterates


def sania_polyak(
    w0: list[Tensor],
    loss_and_grads: Callable[[list[Tensor]], tuple[float, list[Tensor]]],
    steps: int,
    lr: float,
    beta: float | None = 0.999,
    eps: float = 0.1,
    weight_decay: float = 0.0,
) -> list[list[Tensor]]:
    """SANIA's step from the loss: one lambda for the whole network, no first moment.

    lambda = 1 - sqrt(1 - 2 f / q) when 2 f < q, else 1, with q = sum g^2 / B and B = max(v, eps); v is an EMA
    of g^2 (``beta``) or, with ``beta=None``, its sum.
    """
    weights = [w.clone() for w in w0]
    second = [torch.zeros_like(w) for w in w0]
    iterates = []
    for _ in range(steps):
        f, grads = loss_and_grads(weights)
        if beta is None:
            second = [v + g * g for v, g in zip(second, grads, strict=True)]
        else:
            second = [beta * v + (1 - beta) * g * g for v, g in zip(second, grads, strict=True)]
        scaled = [g / v.clamp(min=eps) for v, g in zip(second, grads, strict=True)]
        q = sum(float((g * p).sum()) for g, p in zip(grads, scaled, strict=True))
        lam = 1 - (1 - 2 * f / q) ** 0.5 if 2 * f < q else 1.0
        weights = [(1 - lr * weight_decay) * w - lr * lam * p for w, p in zip(weights, scaled, strict=True)]
        iterates.append(weights)
    return iterates


def madgrad(
    w0: Tensor,
    grads: list[Tensor],
    lr: float = 1e-2,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    eps: float = 1e-6,
    decoupled: bool = False,
) -> list[Tensor]:
    """Dual averaging with a cube root: z = x0 - s / (nu^(1/3) + eps), x an average of the z."""
    x, s, nu, iterates = w0.clone(), torch.zeros_like(w0), torch.zeros_like(w0), []
    for t, g in enumerate(grads, start=1):
        if not decoupled:
            g = g + weight_decay * x
        lam = (lr + eps) * t**0.5
        s = s + lam * g
        nu = nu + lam * g * g
        z = w0 - s / (nu.pow(1 / 3) + eps)
        old = x
        x = momentum * x + (1 - momentum) * z
        if decoupled:
            x = x - (lr + eps) * weight_decay * old
        iterates.append(x)
    return iterates
