"""The weight's side of a step: decay, constraint and the move, in place, rounded once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from steepest.numeric import length
from steepest.rounding import NEAREST, Weight, compute_dtype
from steepest.rule import Rule
from steepest.views import as_stack


def apply_(
    param: Tensor,
    direction: Tensor,
    hypers: Mapping[str, Any],
    rule: Rule,
    batch_dims: int = 0,
    stored: Weight = NEAREST,
) -> None:
    """Set ``param <- (1 - lr * weight_decay) param - lr * direction``, or as ``rule`` says.

    Low-precision parameters are moved in float32 and rounded once at the end, as ``stored`` does.
    """
    lr = hypers["lr"]
    weight = stored.read(param)
    if rule.constraint == "hyperball":
        _turn(weight, direction, lr, batch_dims)
    else:
        kept = _kept(rule, hypers, weight, direction)
        if rule.decay != "after":
            _scale(weight, kept)
        if isinstance(lr, Tensor):
            weight.sub_(lr * direction)
        else:
            weight.add_(direction, alpha=-lr)
        if rule.decay == "after":
            _scale(weight, kept)
    stored.write(param, weight)


def apply_all_(
    params: list[Tensor],
    directions: tuple[Tensor, ...],
    hypers: Mapping[str, Any],
    rule: Rule,
    batch_dims: int,
    stored: Sequence[Weight],
) -> None:
    """Do what :func:`apply_` does to each of several parameters that are alike, bit for bit.

    In few calls where lr and decay are numbers and weights are moved as they are.
    """
    lr, decay = hypers["lr"], hypers.get("weight_decay", 0.0)
    simple = rule.constraint is None and rule.decay in ("decoupled", "after", "l2")
    as_it_is = params[0].dtype == compute_dtype(params[0]) and all(one is NEAREST for one in stored)
    if isinstance(lr, Tensor) or isinstance(decay, Tensor) or not (simple and as_it_is and len(params) > 1):
        for param, direction, one in zip(params, directions, stored, strict=True):
            apply_(param, direction, hypers, rule, batch_dims, one)
        return
    kept = 1.0 if rule.decay == "l2" else 1 - lr * decay
    if kept != 1.0 and rule.decay != "after":
        torch._foreach_mul_(params, kept)
    torch._foreach_add_(params, directions, alpha=-lr)
    if kept != 1.0 and rule.decay == "after":
        torch._foreach_mul_(params, kept)


def pairing(param: Tensor, direction: Tensor, momentum: Tensor, rule: Rule) -> Tensor:
    """Return <M, S>, the decrease a step promises per unit of length; <M, W + S> for constrained steps."""
    total = (momentum * direction).sum()
    return total + (momentum * param).sum() if rule.decay == "constrained" else total


def _kept(rule: Rule, hypers: Mapping[str, Any], weight: Tensor, direction: Tensor) -> Any:
    """Return the factor that decay leaves of the weight."""
    if rule.decay == "constrained":
        return 1 - hypers["lr"]
    decay = 0.0 if rule.decay == "l2" else hypers.get("weight_decay", 0.0)
    if rule.decay == "cautious" and (isinstance(decay, Tensor) or decay != 0.0):
        decay = decay * (direction * weight > 0).to(weight.dtype)
    return 1 - hypers["lr"] * decay


def _scale(weight: Tensor, factor: Any) -> None:
    if isinstance(factor, Tensor) or factor != 1.0:
        weight.mul_(factor)


def _turn(weight: Tensor, direction: Tensor, lr: Any, batch_dims: int) -> None:
    """Move each matrix by lr times its own norm and bring it back to that norm; a zero weight stays zero."""
    stack, step = as_stack(weight, batch_dims), as_stack(direction, batch_dims)
    radius, size = length(stack), length(step)
    moved = turned(stack, step, lr, radius, size)
    weight.copy_(brought_back(stack, moved, lr, radius, size, length(moved)).reshape(weight.shape))


def turned(stack: Tensor, step: Tensor, lr: Any, radius: Tensor, size: Tensor) -> Tensor:
    """Return weights of norms ``radius``, moved by lr times it along steps of norms ``size``."""
    return stack - lr * step * (radius / torch.where(size > 0, size, 1.0)).to(stack.dtype)


def brought_back(
    stack: Tensor, moved: Tensor, lr: Any, radius: Tensor, size: Tensor, reached: Tensor
) -> Tensor:
    """Return what was moved, of norms ``reached``, with the norms of ``stack`` again."""
    moved *= (radius / torch.where(reached > 0, reached, 1.0)).to(stack.dtype)
    # lr = 0 and a zero step must leave every bit as it is.
    still = (size == 0) | torch.as_tensor(lr == 0, device=size.device)
    return torch.where(still, stack, moved)
