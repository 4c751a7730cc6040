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


def kfac_mlp(
    weights: list[Tensor],
    batches: list[tuple[Tensor, Tensor]],
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    damping: float = 1e-3,
    factored_damping: bool = False,
    stat_decay: float = 0.95,
    kl_clip: float | None = None,
    precondition_frequency: int = 1,
) -> list[list[Tensor]]:
    """K-FAC on y = W_2 [tanh(W_1 [x; 1]); 1] under the mean over examples of |y - target|^2 / 2.

    The bias is the last column of each weight. Backpropagation is written out, so the gradient of one
    example's loss at every layer's output is at hand. Statistics are averages with weights stat_decay^age;
    their eigendecompositions are ``precondition_frequency`` steps apart, the first at t = 1.
    """
    weights = [w.clone() for w in weights]
    buffers = [torch.zeros_like(w) for w in weights]
    sums = [(w.new_zeros(w.shape[0], w.shape[0]), w.new_zeros(w.shape[1], w.shape[1])) for w in weights]
    used, total, iterates = sums, 0.0, []
    for t, (x, target) in enumerate(batches, start=1):
        ones = torch.ones(len(x), 1, dtype=x.dtype)
        first_input = torch.cat([x, ones], dim=1)
        hidden = torch.tanh(first_input @ weights[0].T)
        second_input = torch.cat([hidden, ones], dim=1)
        second_output = second_input @ weights[1].T - target
        first_output = (second_output @ weights[1][:, :-1]) * (1 - hidden**2)
        layers = [(first_input, first_output), (second_input, second_output)]

        total = stat_decay * total + 1 - stat_decay
        sums = [
            (
                stat_decay * a + (1 - stat_decay) * g.T @ g / len(x),
                stat_decay * b + (1 - stat_decay) * i.T @ i / len(x),
            )
            for (a, b), (i, g) in zip(sums, layers, strict=True)
        ]
        if (t - 1) % precondition_frequency == 0:
            used = [(a / total, b / total) for a, b in sums]
        direction = kfac_direction_factored if factored_damping else kfac_direction
        grads = [g.T @ i / len(x) for i, g in layers]
        directions = [direction(g, a, b, damping) for g, (a, b) in zip(grads, used, strict=True)]
        factor = 1.0 if kl_clip is None else kl_factor(directions, grads, lr, kl_clip)
        buffers = [momentum * m + factor * u for m, u in zip(buffers, directions, strict=True)]
        weights = [(1 - lr * weight_decay) * w - lr * m for w, m in zip(weights, buffers, strict=True)]
        iterates.append(weights)
    return iterates
