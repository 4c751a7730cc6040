"""K-FAC on one layer, from given covariances of output gradients (A) and inputs (B)."""

import torch
from torch import Tensor


def kfac_direction(g: Tensor, a: Tensor, b: Tensor, damping: float) -> Tensor:
    """Damping on the product: Q_A [(Q_A^T G Q_B) / (lam_A lam_B^T + damping)] Q_B^T."""
    lam_a, q_a = torch.linalg.eigh(a)
    lam_b, q_b = torch.linalg.eigh(b)
    return q_a @ ((q_a.T @ g @ q_b) / (lam_a[:, None] * lam_b[None, :] + damping)) @ q_b.T


def kfac_direction_factored(g: Tensor, a: Tensor, b: Tensor, damping: float) -> Tensor:
    """Damping on the factors: (A + pi sqrt(damping) I)^-1 G (B + sqrt(damping) / pi I)^-1.

    pi balances the mean eigenvalues of the two factors.
    """
    pi = ((a.trace() / a.shape[0]) / (b.trace() / b.shape[0])).sqrt()
    root = damping**0.5
    damped_a = a + pi * root * torch.eye(a.shape[0], dtype=a.dtype)
    damped_b = b + root / pi * torch.eye(b.shape[0], dtype=b.dtype)
    return torch.linalg.solve(damped_b, torch.linalg.solve(damped_a, g).T).T


def kl_factor(directions: list[Tensor], grads: list[Tensor], lr: float, kappa: float) -> float:
    """min(1, sqrt(kappa / |sum lr^2 <U, G>|)) over all layers."""
    total = sum(lr**2 * float((u * g).sum()) for u, g in zip(directions, grads, strict=True))
    return min(1.0, (kappa / abs(total)) ** 0.5) if total else 1.0


def linear_statistics(inputs: Tensor, output_grads: Tensor, bias: bool) -> tuple[Tensor, Tensor]:
    """Covariances of one batch of a linear layer: rows are examples, the bias is an input of 1."""
    if bias:
        inputs = torch.cat([inputs, torch.ones(inputs.shape[0], 1, dtype=inputs.dtype)], dim=1)
    return output_grads.T @ output_grads / len(output_grads), inputs.T @ inputs / len(inputs)
