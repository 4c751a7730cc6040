"""ANDI's formula as one writes it down first: what a fast ANDI is measured against."""

from __future__ import annotations

from typing import Any

import torch


class PlainANDI(torch.optim.Optimizer):
    """ANDI, one tensor at a time in whole-tensor operations: the published formula and nothing else.

    Source: Khasia, ANDI: Adaptive Norm-Distribution Interface (2025), DOI 10.5281/zenodo.17923146.
    """

    def __init__(self, params: Any, lr: float = 0.02, momentum: float = 0.9, eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step."""
        for group in self.param_groups:
            for p in group["params"]:
                g = p.grad.reshape(p.shape[0], -1) if p.ndim > 1 else p.grad
                h = g
                if p.ndim > 1 and min(g.shape) > 16:
                    h = g / (g.norm(dim=1, keepdim=True) + g.norm(dim=0, keepdim=True) + group["eps"])
                h = h * ((g.norm() ** 2 + 1).sqrt() / (h.norm() + group["eps"]))
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(g)
                buffer = state["momentum_buffer"].mul_(group["momentum"]).add_(h)
                p.add_((h + group["momentum"] * buffer).reshape(p.shape), alpha=-group["lr"])
