"""Second-moment factors sum X X^T of any scale, in the dtype of the arithmetic, and products with them.

The squares of float32 entries overflow beyond 1e19 and vanish below 1e-23. A factor is therefore kept in
units of its own: what is meant is ``factor * unit^2`` with ``unit`` a power of two, so that rescaling is
exact; 1 for gradients of ordinary size.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

from steepest.linalg.products import symmetric_multiply_add
from steepest.linalg.scaling import power_of_two, readable

_MODERATE = 2.0**-20, 2.0**20
"""Gradients whose largest entry lies between these are used as they are: their statistic has the unit 1."""
_FADED, _SHRINK = 2.0**-44, 2.0**-32
"""A statistic this small has its unit lowered by this much, which leads out of the moderate range."""
_LARGE = 128
"""From this side on, matrices of a stack on the CPU are multiplied one at a time."""


def new_factor(x: Tensor, *lead: int, size: int) -> tuple[Tensor, Tensor]:
    """Return a zero factor (*lead, size, size) in the dtype of ``x``, and its unit (*lead, 1, 1)."""
    return x.new_zeros(*lead, size, size), x.new_zeros(*lead, 1, 1)


def accumulate_(
    factor: Tensor, unit: Tensor, x: Tensor, keep: Any, weight: Any, size: Tensor | None = None
) -> None:
    """Set ``factor unit^2 <- keep factor unit^2 + weight X X^T`` in place, for stacks X (k, d, e).

    ``size`` is ``power_of_two(x)``, where that is known already.
    """
    if not x.numel():
        return
    size = power_of_two(x) if size is None else size
    x = enter_(factor, unit, x, size)
    if isinstance(keep, Tensor) or isinstance(weight, Tensor):
        factor.mul_(keep).add_((x @ x.mT) * weight)
    elif readable(x) and (len(x) == 1 or x.shape[-2] >= _LARGE):
        for a, one in zip(factor, x, strict=True):
            symmetric_multiply_add(a, one, one.mT, a, beta=keep, alpha=weight)
    else:
        factor.baddbmm_(x, x.mT, beta=keep, alpha=weight)
    if not ordinary(x, size):
        # No entry of a positive semi-definite matrix is larger than the largest on its diagonal.
        leave_(factor, unit, factor.diagonal(dim1=-2, dim2=-1).amax(-1)[:, None, None])


def enter_(statistic: Tensor, unit: Tensor, x: Tensor, size: Tensor) -> Tensor:
    """Return ``x`` in the unit of its statistic, which is changed first where ``x`` has outgrown it.

    ``size`` is ``power_of_two(x)``.
    """
    new = torch.maximum(unit, size)
    new = torch.where((new >= _MODERATE[0]) & (new <= _MODERATE[1]), 1.0, new).to(unit.dtype)
    if not readable(x) or not torch.equal(new, unit):
        statistic.mul_((unit / new).square())
        unit.copy_(new)
    return x if plain(x, new) else x / new


def leave_(statistic: Tensor, unit: Tensor, largest: Tensor) -> None:
    """Lower the unit of a statistic that has faded, given its largest entries (k, 1, 1)."""
    faded = largest < _FADED
    if readable(faded) and not bool(faded.any()):
        return
    shrink = torch.where(faded, _SHRINK, 1.0).to(unit.dtype)
    statistic.div_(shrink.square())
    unit.mul_(shrink)


def ordinary(x: Tensor, size: Tensor) -> bool:
    """Return whether ``x`` is known to keep its statistic from fading, where knowing costs nothing."""
    return readable(x) and bool((size >= _MODERATE[0]).all())


def plain(x: Tensor, unit: Tensor) -> bool:
    """Return whether all units are known to be 1, where knowing it costs nothing."""
    return readable(x) and bool((unit == 1).all())


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return ``a @ b`` for stacks; a single pair goes to the faster product of two matrices."""
    return (a[0] @ b[0])[None] if a.shape[0] == 1 else a @ b


def sandwich(left: Tensor | None, x: Tensor, right: Tensor | None) -> Tensor:
    """Return ``left @ x @ right``, where None is the identity."""
    if left is not None:
        x = product(left, x)
    return x if right is None else product(x, right)


def transposed(x: Tensor | None) -> Tensor | None:
    """Return the transposed matrices; None stays None."""
    return None if x is None else x.mT


def count_(
    state: MutableMapping[str, Tensor],
    failed: Tensor,
    who: Tensor | slice = slice(None),
) -> None:
    """Add the matrices of ``who`` that needed a fallback, (k * blocks,) bool, to ``fallbacks``."""
    counter = state["fallbacks"]
    counter[who] += failed.reshape(counter[who].numel(), -1).sum(-1).to(counter.dtype)


def new_counter(x: Tensor) -> Tensor:
    """Return a zero counter (k,)."""
    return torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)


def statistics_beta(hypers: Mapping[str, Any]) -> Any:
    """Return the coefficient of the factors: ``shampoo_beta``, or ``beta2`` where that is absent or None."""
    beta = hypers.get("shampoo_beta")
    return hypers["beta2"] if beta is None else beta
