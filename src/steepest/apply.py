"""The weight's side of a step: decay and the move, in place, rounded once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from steepest.rule import Rule
from steepest.views import compute_dtype


def apply_(param: Tensor, direction: Tensor, hypers: Mapping[str, Any], rule: Rule) -> None:
    """Set ``param <- (1 - lr * weight_decay) param - lr * direction``, or as ``rule.decay`` says.

    Low-precision parameters are moved in float32 and rounded once at the end.
    """
    lr = hypers["lr"]
    kept = _kept(rule, hypers)
    weight = param if param.dtype == compute_dtype(param) else param.float()
    if rule.decay != "after":
        _scale(weight, kept)
    if isinstance(lr, Tensor):
        weight.sub_(lr * direction)
    else:
        weight.add_(direction, alpha=-lr)
    if rule.decay == "after":
        _scale(weight, kept)
    if weight is not param:
        param.copy_(weight)


def pairing(param: Tensor, direction: Tensor, momentum: Tensor, rule: Rule) -> Tensor:
    """Return <M, S>, the decrease a step promises per unit of length; <M, W + S> for constrained steps."""
    total = (momentum * direction).sum()
    return total + (momentum * param).sum() if rule.decay == "constrained" else total


def _kept(rule: Rule, hypers: Mapping[str, Any]) -> Any:
    """Return the factor that decay leaves of the weight."""
    if rule.decay == "constrained":
        return 1 - hypers["lr"]
    decay = 0.0 if rule.decay == "l2" else hypers.get("weight_decay", 0.0)
    return 1 - hypers["lr"] * decay


def _scale(weight: Tensor, factor: Any) -> None:
    if isinstance(factor, Tensor) or factor != 1.0:
        weight.mul_(factor)
