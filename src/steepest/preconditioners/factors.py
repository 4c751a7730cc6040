"""Second-moment factors sum X X^T of any scale, in the dtype of the arithmetic, and products with them.

The squares of float32 entries overflow beyond 1e19 and vanish below 1e-23. A factor is therefore kept in
units of its own: what is meant is ``factor * unit^2`` with ``unit`` a power of two, so that rescaling is
exact.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

from steepest.linalg.scaling import power_of_two

_FADED, _SHRINK = 2.0**-32, 2.0**-16


def new_factor(x: Tensor, *lead: int, size: int) -> tuple[Tensor, Tensor]:
    """Return a zero factor (*lead, size, size) in the dtype of ``x``, and its unit (*lead, 1, 1)."""
    return x.new_zeros(*lead, size, size), x.new_zeros(*lead, 1, 1)


def accumulate_(factor: Tensor, unit: Tensor, x: Tensor, keep: Any, weight: Any) -> None:
    """Set ``factor unit^2 <- keep factor unit^2 + weight X X^T`` in place, for stacks X (k, d, e)."""
    if x.numel():
        x = enter_(factor, unit, x)
        factor.mul_(keep).add_(product(x, x.mT) * weight)
        # No entry of a positive semi-definite matrix is larger than the largest on its diagonal.
        leave_(factor, unit, factor.diagonal(dim1=-2, dim2=-1).amax(-1)[:, None, None])


def enter_(statistic: Tensor, unit: Tensor, x: Tensor) -> Tensor:
    """Return ``x`` in the unit of its statistic, after raising that until no entry exceeds two."""
    new = torch.maximum(unit, power_of_two(x))
    statistic.mul_((unit / new).square())
    unit.copy_(new)
    return x / new


def leave_(statistic: Tensor, unit: Tensor, largest: Tensor) -> None:
    """Lower the unit of a statistic that has faded, given its largest entries (k, 1, 1)."""
    shrink = torch.where(largest < _FADED, _SHRINK, 1.0).to(unit.dtype)
    statistic.div_(shrink.square())
    unit.mul_(shrink)


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


def count_(state: MutableMapping[str, Tensor], failed: Tensor) -> None:
    """Add the matrices that needed a fallback, (k * blocks,) bool, to the counter ``fallbacks``."""
    counter = state["fallbacks"]
    counter.add_(failed.reshape(counter.numel(), -1).sum(-1).reshape(counter.shape).to(counter.dtype))


def new_counter(x: Tensor) -> Tensor:
    """Return a zero counter (k,)."""
    return torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)


def statistics_beta(hypers: Mapping[str, Any]) -> Any:
    """Return the coefficient of the factors: ``shampoo_beta``, or ``beta2`` where that is absent or None."""
    beta = hypers.get("shampoo_beta")
    return hypers["beta2"] if beta is None else beta
