"""torch's own fused Adam, for recipes that are Adam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from steepest.auxiliary import ADAMW
from steepest.momentum import EMA
from steepest.preconditioners import Diagonal
from steepest.rule import Rule


@lru_cache(maxsize=256)
def is_adam(rule: Rule) -> bool:
    """Return whether a rule is Adam or AdamW; its numbers come from the groups and do not matter."""
    if not isinstance(rule.momentum, EMA) or not isinstance(rule.preconditioner, Diagonal):
        return False
    numbers_aside = replace(
        rule,
        momentum=replace(rule.momentum, momentum=0.9),
        preconditioner=replace(rule.preconditioner, eps=1e-8, beta=rule.preconditioner.beta and 0.999),
        decay="decoupled",
    )
    return numbers_aside == ADAMW


@dataclass(frozen=True)
class FusedAdam:
    """``torch._fused_adam_`` (L2 decay) or ``torch._fused_adamw_`` (decoupled decay)."""

    decoupled: bool
    maximize: bool

    def __call__(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        states: Sequence[Mapping[str, Tensor]],
        hypers: Mapping[str, Any],
    ) -> None:
        """Update states and weights."""
        step = torch._fused_adamw_ if self.decoupled else torch._fused_adam_
        step(
            list(params),
            [grad.contiguous() for grad in grads],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            lr=hypers["lr"],
            beta1=hypers["momentum"],
            beta2=hypers["beta2"],
            weight_decay=hypers["weight_decay"],
            eps=hypers["eps"],
            amsgrad=False,
            maximize=self.maximize,
        )


def adam_kernel(rule: Rule, param: Tensor, group: Mapping[str, Any]) -> FusedAdam | None:
    """Return the kernel for Adam on a contiguous float32 or float64 parameter on CPU or CUDA, or None."""
    if (
        param.device.type not in ("cpu", "cuda")
        or param.dtype not in (torch.float32, torch.float64)
        or not param.is_contiguous()
        or type(param.data) is not Tensor
        or any(isinstance(beta, Tensor) and beta.device.type != "cpu" for beta in group.get("betas", ()))
        or _is_zero(group.get("eps"))  # entries that never saw a gradient would be 0 / 0
        or rule.decay not in ("decoupled", "l2")
        or not is_adam(rule)
    ):
        return None
    return FusedAdam(rule.decay == "decoupled", group["maximize"])


def _is_zero(number: Any) -> bool:
    return number == 0 if not isinstance(number, Tensor) else number.device.type == "cpu" and not number.any()
