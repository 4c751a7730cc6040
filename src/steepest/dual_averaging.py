"""Dual averaging: the weight is a function of all gradients so far and of where it began."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steepest.rule import Rule, Update


@dataclass(frozen=True)
class DualAveraging(Rule):
    """MADGRAD's rule, which no choice of the four axes gives: it keeps the starting point.

    lam = (lr + eps) sqrt(t), s <- s + lam G, nu <- nu + lam G^2, z = x0 - s / (nu^(1/3) + eps),
    W <- momentum W + (1 - momentum) z, and with ``decay="decoupled"`` - (lr + eps) weight_decay W_old.
    State: ``grad_sum``, ``grad_sum_sq`` and ``x0``, all of the parameter's shape, and ``step``.
    """

    needs_weight = True

    def _refuse_illegal(self) -> None:
        """Refuse treatments of the weight that this rule, which sets the weight itself, would not follow."""
        super()._refuse_illegal()
        if self.constraint or self.decay not in ("decoupled", "l2"):
            raise ValueError(
                f"dual averaging sets the weight itself: it cannot be combined with decay={self.decay!r} and "
                f"constraint={self.constraint!r}"
            )

    @property
    def needs_step(self) -> bool:
        """True: lam grows with the root of the count."""
        return True

    def hypers(self) -> dict[str, Any]:
        """Return ``momentum`` and ``eps``."""
        return {"momentum": 0.9, "eps": 1e-6}

    def init(self, x: Tensor) -> dict[str, Tensor]:
        """Return zero sums; ``x0`` is taken at the first step."""
        return {name: torch.zeros_like(x) for name in ("grad_sum", "grad_sum_sq", "x0")}

    def update(
        self, grad: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]
    ) -> Update | None:
        """Return the whole move W_old - W_new. With lr = 0 nothing moves and nothing is added."""
        lr, eps, weight = hypers["lr"], hypers["eps"], hypers["weight"]
        x0, total, squares = state["x0"], state["grad_sum"], state["grad_sum_sq"]
        x0.copy_(torch.where(torch.as_tensor(hypers["step"] == 1, device=x0.device), weight, x0))
        active = torch.as_tensor(lr > 0, device=grad.device)
        lr = (lr + eps) * active.to(torch.float64 if grad.device.type != "mps" else torch.float32)
        lam = (lr * hypers["step"] ** 0.5).to(grad.dtype)
        total.add_(lam * grad)
        squares.add_(lam * grad * grad)
        z = x0 - total / (squares.pow(1 / 3) + eps)
        move = (1 - hypers["momentum"]) * (weight - z) * active
        if self.decay == "decoupled":
            move = move + (lr * hypers["weight_decay"]).to(grad.dtype) * weight
        return Update(move, grad, final=True)
