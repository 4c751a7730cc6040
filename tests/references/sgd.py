"""Normalised SGD and sign SGD: the Frobenius and the Max norm with a unit step."""

import torch
from torch import Tensor


def normalized_sgd(
    w0: Tensor,
    grads: list[Tensor],
    lr: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> list[Tensor]:
    """W <- (1 - lr wd) W - lr M / |M|_F with the heavy-ball sum M, and 0/0 = 0."""
    w, buffer, iterates = w0.clone(), torch.zeros_like(w0), []
    for g in grads:
        buffer = momentum * buffer + g
        m = g + momentum * buffer if nesterov else buffer
        norm = (m * m).sum().sqrt()
        direction = m / norm if norm > 0 else torch.zeros_like(m)
        w = (1 - lr * weight_decay) * w - lr * direction
        iterates.append(w)
    return iterates


def sign_sgd(
    w0: Tensor,
    grads: list[Tensor],
    lr: float,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> list[Tensor]:
    """W <- (1 - lr wd) W - lr sign(M) with M an EMA of the gradient."""
    w, buffer, iterates = w0.clone(), torch.zeros_like(w0), []
    for g in grads:
        buffer = momentum * buffer + (1 - momentum) * g
        m = momentum * buffer + (1 - momentum) * g if nesterov else buffer
        w = (1 - lr * weight_decay) * w - lr * torch.sign(m)
        iterates.append(w)
    return iterates
