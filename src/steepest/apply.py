"""The weight's side of a step: decay and the move, in place, rounded once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from steepest.rule import Rule
from steepest.views import compute_dtype


def apply_(param: Tensor, direction: Tensor, hypers: Mapping[str, Any], rule: Rule) -> None:
    """Set ``param <- (1 - lr * weight_decay) param - lr * direction``.

    Low-precision parameters are moved in float32 and rounded once at the end.
    """
    lr = hypers["lr"]
    decay = hypers.get("weight_decay", 0.0) if rule.decay == "decoupled" else 0.0
    weight = param if param.dtype == compute_dtype(param) else param.float()
    if isinstance(decay, Tensor) or decay != 0.0:
        weight.mul_(1 - lr * decay)
    if isinstance(lr, Tensor):
        weight.sub_(lr * direction)
    else:
        weight.add_(direction, alpha=-lr)
    if weight is not param:
        param.copy_(weight)
