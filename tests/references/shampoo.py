"""Shampoo and one-sided Shampoo: inverse roots of the accumulated outer products."""

import torch
from torch import Tensor

from references.common import Seen, as_matrix


def power(a: Tensor, exponent: float) -> Tensor:
    """A real power of a symmetric positive definite matrix."""
    values, vectors = torch.linalg.eigh(a)
    return vectors @ torch.diag(values**exponent) @ vectors.T


def _accumulate(total: Tensor, new: Tensor, beta: float) -> Tensor:
    return total + new if beta == 1 else beta * total + (1 - beta) * new


def _graft(kind: str, g2_sum: Tensor, g2_ema: Tensor, m_hat: Tensor, correction: float, eps: float) -> Tensor:
    """The direction whose length a grafted step takes."""
    if kind == "sgd":
        return m_hat
    if kind == "adagrad":
        return m_hat / (g2_sum.sqrt() + eps)
    if kind == "rmsprop":
        return m_hat / (g2_ema.sqrt() + eps)
    if kind == "adam":
        return m_hat / ((g2_ema / correction).sqrt() + eps)
    raise ValueError(kind)


def shampoo(
    w0: Tensor,
    grads: list[Tensor],
    lr: float,
    betas: tuple[float, float] = (0.9, 1.0),
    eps: float = 1e-12,
    weight_decay: float = 0.0,
    precondition_frequency: int = 1,
    grafting: str | None = None,
    graft_beta: float = 0.999,
    graft_eps: float = 1e-8,
    lag: bool = False,
) -> list[Tensor]:
    """P = (A + eps I)^(-1/4) Mhat (B + eps I)^(-1/4), for vectors (A + eps I)^(-1/2) Mhat.

    The current gradient is included; roots are taken at t = 1 and whenever ``precondition_frequency`` divides
    t, with ``lag`` of the statistics one refresh before. Grafting: P |graft| / (|P| + 1e-16).
    """
    b1, b2 = betas
    w = w0.clone()
    m = torch.zeros_like(w0)
    g2_sum, g2_ema = torch.zeros_like(w0), torch.zeros_like(w0)
    flat = as_matrix(w0) if w0.ndim >= 2 else w0.reshape(-1, 1)
    rows, columns = flat.shape
    a = torch.zeros(rows, rows, dtype=w0.dtype)
    b = torch.zeros(columns, columns, dtype=w0.dtype)
    left, right = a, b
    seen_a, seen_b = Seen(lag), Seen(lag)
    iterates = []
    for t, gradient in enumerate(grads, start=1):
        g = gradient.reshape(rows, columns)
        m = b1 * m + (1 - b1) * gradient
        m_hat = m / (1 - b1**t)
        g2_sum = g2_sum + gradient**2
        g2_ema = graft_beta * g2_ema + (1 - graft_beta) * gradient**2
        a = _accumulate(a, g @ g.T, b2)
        b = _accumulate(b, g.T @ g, b2)
        if t == 1 or t % precondition_frequency == 0:
            correction = 1.0 if b2 == 1 else 1 - b2**t
            identity_a, identity_b = torch.eye(rows, dtype=w0.dtype), torch.eye(columns, dtype=w0.dtype)
            exponent = -0.25 if w0.ndim >= 2 else -0.5
            left = power(seen_a(a / correction) + eps * identity_a, exponent)
            right = power(seen_b(b / correction) + eps * identity_b, exponent) if w0.ndim >= 2 else identity_b
        p = (left @ m_hat.reshape(rows, columns) @ right).reshape(w0.shape)
        if grafting is not None:
            graft = _graft(grafting, g2_sum, g2_ema, m_hat, 1 - graft_beta**t, graft_eps)
            p = p * graft.norm() / (p.norm() + 1e-16)
        w = (1 - lr * weight_decay) * w - lr * p
        iterates.append(w)
    return iterates


def one_sided_shampoo(
    w0: Tensor,
    grads: list[Tensor],
    lr: float,
    betas: tuple[float, float] = (0.9, 1.0),
    eps: float = 1e-12,
    weight_decay: float = 0.0,
    precondition_frequency: int = 1,
    side: str = "left",
    lag: bool = False,
) -> list[Tensor]:
    """(A + eps I)^(-1/2) Mhat on one side; "smaller" is the left one unless the matrix is tall."""
    rows, columns = as_matrix(w0).shape
    if side == "smaller":
        side = "left" if rows <= columns else "right"
    if side == "right":
        flipped = one_sided_shampoo(
            as_matrix(w0).T,
            [as_matrix(g).T for g in grads],
            lr,
            betas,
            eps,
            weight_decay,
            precondition_frequency,
            lag=lag,
        )
        return [w.T.reshape(w0.shape) for w in flipped]
    b1, b2 = betas
    w, m, a, iterates = (
        as_matrix(w0),
        torch.zeros_like(as_matrix(w0)),
        torch.zeros(rows, rows, dtype=w0.dtype),
        [],
    )
    root, seen = a, Seen(lag)
    for t, gradient in enumerate(grads, start=1):
        g = as_matrix(gradient)
        m = b1 * m + (1 - b1) * g
        a = _accumulate(a, g @ g.T, b2)
        if t == 1 or t % precondition_frequency == 0:
            correction = 1.0 if b2 == 1 else 1 - b2**t
            root = power(seen(a / correction) + eps * torch.eye(rows, dtype=w0.dtype), -0.5)
        w = (1 - lr * weight_decay) * w - lr * root @ (m / (1 - b1**t))
        iterates.append(w.reshape(w0.shape))
    return iterates
