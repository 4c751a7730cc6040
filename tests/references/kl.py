"""KL-Shampoo and KL-SOAP: Kronecker statistics in which each side is whitened by the other."""

import torch
from torch import Tensor

from references.common import Seen, as_matrix
from references.soap import descending_eigenvectors


def _clamped(lam: Tensor) -> Tensor:
    """The clamp acts on the stored lam^(-1/2)."""
    cap = float(max(10, min(lam.numel(), 4000)))
    return lam.pow(-0.5).clamp(max=cap).pow(-2)


def _kl(
    w0: Tensor,
    grads: list[Tensor],
    lr: float,
    betas: tuple[float, float],
    shampoo_beta: float | None,
    eps: float,
    weight_decay: float,
    precondition_frequency: int,
    adam_inside: bool,
    fixed_bases: bool,
    lag: bool,
) -> list[Tensor]:
    b1, b2 = betas
    b = b2 if shampoo_beta is None else shampoo_beta
    w = as_matrix(w0)
    rows, columns = w.shape
    first = as_matrix(grads[0])
    s_a = (1 - b) * first @ first.T / columns
    s_b = (1 - b) * first.T @ first / rows
    if fixed_bases:
        q_a, q_b = torch.eye(rows, dtype=w0.dtype), torch.eye(columns, dtype=w0.dtype)
    else:
        q_a, q_b = descending_eigenvectors(s_a), descending_eigenvectors(s_b)
    seen_a, seen_b = Seen(lag), Seen(lag)
    for seen, s in ((seen_a, s_a), (seen_b, s_b)):
        seen(s)
    lam_a = torch.full((rows,), 0.1, dtype=w0.dtype)
    lam_b = torch.full((columns,), 0.1, dtype=w0.dtype)
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    iterates = [w.reshape(w0.shape)]

    for t, gradient in enumerate(grads[1:], start=1):
        g = as_matrix(gradient)
        m = b1 * m + (1 - b1) * g
        projected = q_a.T @ g @ q_b
        if adam_inside:
            v = b * v + (1 - b) * projected**2
            inner = (q_a.T @ m @ q_b) / (v.sqrt() + eps)
        else:
            e = lam_a.pow(-0.5)[:, None] * lam_b.pow(-0.5)[None, :]
            inner = (q_a.T @ m @ q_b) * e / (1 + eps * e)
        w = w - lr * q_a @ inner @ q_b.T
        w = w * (1 - lr * weight_decay)
        iterates.append(w.reshape(w0.shape))

        inverse_a = q_a @ torch.diag(1 / lam_a) @ q_a.T
        inverse_b = q_b @ torch.diag(1 / lam_b) @ q_b.T
        s_a = b * s_a + (1 - b) / columns * g @ inverse_b @ g.T
        s_b = b * s_b + (1 - b) / rows * g.T @ inverse_a @ g
        new_a = b * lam_a + (1 - b) * (projected**2 / lam_b[None, :]).mean(dim=1)
        new_b = b * lam_b + (1 - b) * (projected**2 / lam_a[:, None]).mean(dim=0)
        lam_a, lam_b = _clamped(new_a), _clamped(new_b)
        if t % precondition_frequency == 0 and not fixed_bases:
            q_a = torch.linalg.qr(seen_a(s_a) @ q_a)[0]
            q_b = torch.linalg.qr(seen_b(s_b) @ q_b)[0]
    return iterates


def kl_shampoo(
    w0: Tensor,
    grads: list[Tensor],
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.98),
    shampoo_beta: float | None = None,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    precondition_frequency: int = 10,
    fixed_bases: bool = False,
    lag: bool = False,
) -> list[Tensor]:
    """U = Q_a [(Q_a^T M Q_b) * E / (1 + eps E)] Q_b^T; the first gradient only sets the statistics."""
    return _kl(
        w0, grads, lr, betas, shampoo_beta, eps, weight_decay, precondition_frequency, False, fixed_bases, lag
    )


def kl_soap(
    w0: Tensor,
    grads: list[Tensor],
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.98),
    shampoo_beta: float | None = None,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    precondition_frequency: int = 10,
    fixed_bases: bool = False,
    lag: bool = False,
) -> list[Tensor]:
    """The same statistics and bases with Adam's direction inside, without bias correction."""
    return _kl(
        w0, grads, lr, betas, shampoo_beta, eps, weight_decay, precondition_frequency, True, fixed_bases, lag
    )
