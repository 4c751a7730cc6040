"""SOAP and SPlus: Adam and sign descent in the eigenbasis of Shampoo's factors."""

import torch
from torch import Tensor

from references.common import Seen, as_matrix


def descending_eigenvectors(s: Tensor) -> Tensor:
    """Eigenvectors of a symmetric matrix, largest eigenvalue first."""
    return torch.linalg.eigh(s)[1].flip(1)


def _refresh(q: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """One sorted power iteration; returns the new basis and the order of the old columns."""
    order = torch.argsort(torch.diag(q.T @ s @ q), descending=True)
    return torch.linalg.qr(s @ q[:, order])[0], order


def soap(
    w0: Tensor,
    grads: list[Tensor],
    lr: float = 3e-3,
    betas: tuple[float, float] = (0.95, 0.95),
    shampoo_beta: float | None = None,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    precondition_frequency: int = 10,
    max_precondition_dim: int = 10000,
    include_current: bool = False,
    identity_basis: bool = False,
    lag: bool = False,
) -> list[Tensor]:
    """Adam in the eigenbasis of the EMA of G G^T and G^T G.

    The first call only sets the statistics and the basis (t counts the calls that move). With
    ``include_current`` the current gradient enters statistics and basis before they are used and no call is
    skipped. ``identity_basis`` switches the rotation off. ``lag`` takes bases of statistics one refresh old.
    """
    b1, b2 = betas
    bs = b2 if shampoo_beta is None else shampoo_beta
    w = as_matrix(w0)
    rows, columns = w.shape
    rotate_left = rows <= max_precondition_dim and not identity_basis
    rotate_right = columns <= max_precondition_dim and not identity_basis
    left = torch.zeros(rows, rows, dtype=w0.dtype)
    right = torch.zeros(columns, columns, dtype=w0.dtype)
    q_left, q_right = torch.eye(rows, dtype=w0.dtype), torch.eye(columns, dtype=w0.dtype)
    seen_left, seen_right = Seen(lag), Seen(lag)
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    iterates, t, first = [], 0, True

    for gradient in grads:
        g = as_matrix(gradient)

        if first or include_current:
            left = bs * left + (1 - bs) * g @ g.T
            right = bs * right + (1 - bs) * g.T @ g
        if first:
            first = False
            if rotate_left:
                q_left = descending_eigenvectors(seen_left(left))
            if rotate_right:
                q_right = descending_eigenvectors(seen_right(right))
            if not include_current:
                iterates.append(w.reshape(w0.shape))
                continue
        elif include_current and (t + 1) % precondition_frequency == 0:
            if rotate_left:
                q_left, order = _refresh(q_left, seen_left(left))
                v = v[order, :]
            if rotate_right:
                q_right, order = _refresh(q_right, seen_right(right))
                v = v[:, order]

        t += 1
        projected = q_left.T @ g @ q_right
        v = b2 * v + (1 - b2) * projected**2
        m = b1 * m + (1 - b1) * g
        inner = (q_left.T @ m @ q_right) / (v.sqrt() + eps)
        w = w - lr * (1 - b2**t) ** 0.5 / (1 - b1**t) * q_left @ inner @ q_right.T
        w = w - lr * weight_decay * w
        iterates.append(w.reshape(w0.shape))

        if not include_current:
            left = bs * left + (1 - bs) * g @ g.T
            right = bs * right + (1 - bs) * g.T @ g
            if t % precondition_frequency == 0:
                if rotate_left:
                    q_left, order = _refresh(q_left, seen_left(left))
                    v = v[order, :]
                if rotate_right:
                    q_right, order = _refresh(q_right, seen_right(right))
                    v = v[:, order]
    return iterates


def splus(
    w0: Tensor,
    grads: list[Tensor],
    lr: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.999),
    ema: float = 0.999,
    weight_decay: float = 0.01,
    precondition_frequency: int = 100,
    lag: bool = False,
) -> tuple[list[Tensor], list[Tensor]]:
    """Sign descent in the eigenbasis; returns the iterates and their bias-corrected averages."""
    b1, b2 = betas
    w, m, average = w0.clone(), torch.zeros_like(w0), torch.zeros_like(w0)
    matrix = w0.ndim >= 2
    rows, columns = as_matrix(w0).shape if matrix else (1, 1)
    left = torch.zeros(rows, rows, dtype=w0.dtype)
    right = torch.zeros(columns, columns, dtype=w0.dtype)
    q_left, q_right = torch.eye(rows, dtype=w0.dtype), torch.eye(columns, dtype=w0.dtype)
    seen_left, seen_right = Seen(lag), Seen(lag)
    iterates, averages = [], []
    for t, gradient in enumerate(grads, start=1):
        m = b1 * m + (1 - b1) * gradient
        if matrix:
            g = as_matrix(gradient)
            u = (q_left @ torch.sign(q_left.T @ as_matrix(m) @ q_right) @ q_right.T).reshape(w0.shape)
            e = lr * 2 / (rows + columns)
            left = b2 * left + (1 - b2) * g @ g.T
            right = b2 * right + (1 - b2) * g.T @ g
            if t == 1 or t % precondition_frequency == 0:
                q_left = descending_eigenvectors(seen_left(left))
                q_right = descending_eigenvectors(seen_right(right))
        else:
            u, e = torch.sign(m), lr * 0.001
        w = (w - e * u) * (1 - e * weight_decay)
        average = ema * average + (1 - ema) * w
        iterates.append(w)
        averages.append(average / (1 - ema**t))
    return iterates, averages
