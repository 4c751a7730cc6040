"""ANDI: each entry divided by the sum of its row and column norms, then the energy floor."""

import torch
from torch import Tensor

from references.common import as_matrix


def equilibrate(g: Tensor, eps: float, mixing: str | None = None, shift: int = 7) -> Tensor:
    """Ghat of a matrix G."""
    if mixing == "direct":  # roll the columns, take the norms there, roll back
        rolled = torch.roll(g, shift, dims=1)
        return torch.roll(equilibrate(rolled, eps), -shift, dims=1)
    row = (g * g).sum(dim=1).sqrt()
    column = (g * g).sum(dim=0).sqrt()
    denominator = row[:, None] + column[None, :] + eps
    if mixing == "lateral":  # the norms are those of the gradient that was not rolled
        return torch.roll(torch.roll(g, shift, dims=1) / denominator, -shift, dims=1)
    return g / denominator


def andi_direction(
    g: Tensor, threshold: int = 16, eps: float = 1e-8, mixing: str | None = None, shift: int = 7
) -> Tensor:
    """H: the direction of one gradient, of Frobenius norm tau = sqrt(|G|_F^2 + 1)."""
    tau = ((g * g).sum() + 1).sqrt()
    ghat = as_matrix(g)
    if ghat.ndim == 2 and min(ghat.shape) > threshold:
        ghat = equilibrate(ghat, eps, mixing, shift)
    return (tau / ((ghat * ghat).sum().sqrt() + eps) * ghat).reshape(g.shape)


def andi(
    w0: Tensor,
    grads: list[Tensor],
    lr: float,
    momentum: float = 0.9,
    nesterov: bool = True,
    weight_decay: float = 0.0,
    threshold: int = 16,
    eps: float = 1e-8,
    mixing: str | None = None,
    shift: int = 7,
    momentum_init: str = "zero",
) -> list[Tensor]:
    """All iterates of ANDI."""
    w = w0.clone()
    buffer = torch.zeros_like(w0)
    iterates = []
    for t, g in enumerate(grads, start=1):
        h = andi_direction(g, threshold, eps, mixing, shift)
        if t == 1 and momentum_init == "gradient":
            buffer = h.clone()
        buffer = momentum * buffer + h
        update = h + momentum * buffer if nesterov else buffer
        w = (1 - lr * weight_decay) * w - lr * update
        iterates.append(w)
    return iterates
