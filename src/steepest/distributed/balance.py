"""Who works on which matrix: costs, and an even division of them.

A division is a pure function of shapes and rules, so that every rank finds the same one without a message,
and of the matrices before each one, so that parameters added later move no earlier one to another owner.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from steepest.norms import Norm, Spectral
from steepest.operator_norms import Scaled
from steepest.rule import Rule

_OVERHEAD = 2**20
"""Multiply-adds in the time that it takes to call an operation on a small matrix."""
_FACTORISATION = 2
"""Cubes of the side that a factor costs in a step: an eigendecomposition or QR at every tenth."""


def cost(rule: Rule, shape: tuple[int, int, int]) -> int:
    """Return about how many multiply-adds one step of ``rule`` takes on a stack (k, m, n).

    The norm's iteration, products of the gradient with every factor that the preconditioner keeps, and their
    decompositions as if these came at every tenth step. How often they do come is left out, since it may
    change during training, and owners that hold state must stay.

    >>> cost(Rule(norm=Spectral("newton_schulz", steps=5)), (1, 1024, 512)) // 10**6
    3357
    """
    k, m, n = shape
    return k * (_norm_cost(rule.norm, m, n) + _factor_cost(rule, m, n) + m * n) + _OVERHEAD


def _norm_cost(norm: Norm, m: int, n: int) -> int:
    if isinstance(norm, Scaled):
        return _norm_cost(norm.base, m, n)
    if not isinstance(norm, Spectral):
        return m * n
    short, long = min(m, n), max(m, n)
    if norm.orthogonalizer == "svd":
        return 10 * short**3 + 2 * short**2 * long
    direct = norm.steps * (2 * short**2 * long + short**3)
    on_gram = norm.steps * 3 * short**3 + 2 * short**2 * long
    if norm.orthogonalizer.startswith("gram"):
        return on_gram
    return direct if norm.orthogonalizer in ("newton_schulz", "polar_express") else min(direct, on_gram)


def _factor_cost(rule: Rule, m: int, n: int) -> int:
    """Return the cost of all square state: that is what factors, bases and roots are."""
    if m == n:
        n += 1  # a buffer of the matrix's own shape is no factor
    state = rule.preconditioner.init(torch.empty((1, m, n), device="meta"))
    sides = [value for value in state.values() if value.ndim > 2 and value.shape[-2] == value.shape[-1] > 1]
    return sum(
        _FACTORISATION * value.numel() * value.shape[-1] + 2 * m * n * value.shape[-1] for value in sides
    )


def divide_evenly(
    costs: Sequence[int], ranks: int, loads: Sequence[int] | None = None
) -> tuple[list[int], list[int]]:
    """Return the owner of each item, and what every rank then has to do.

    The most expensive item goes to the least loaded rank, and so on: the largest load is below 4/3 of the
    least possible. ``loads`` is what the ranks have to do already.

    >>> divide_evenly([3, 3, 2, 2, 2], 2)
    ([0, 1, 0, 1, 0], [7, 5])
    """
    if ranks < 1:
        raise ValueError(f"ranks must be >= 1, got {ranks!r}")
    total = [0] * ranks if loads is None else list(loads)
    if len(total) != ranks:
        raise ValueError(f"loads must hold one number for each of {ranks} ranks, got {len(total)}")
    owners = [0] * len(costs)
    for item in sorted(range(len(costs)), key=lambda i: -costs[i]):
        owner = min(range(ranks), key=total.__getitem__)
        owners[item] = owner
        total[owner] += costs[item]
    return owners, total


def imbalance(loads: Sequence[int]) -> float:
    """Return the largest load over the mean, 1 for perfect balance.

    >>> imbalance([7, 5])
    1.1666666666666667
    """
    return max(loads) * len(loads) / sum(loads) if any(loads) else 1.0


def waves(sizes: Sequence[int], limit: int) -> list[int]:
    """Return for each item, in order, the number of the wave it travels in, up to ``limit`` entries each.

    An item larger than the limit has a wave of its own.

    >>> waves([3, 3, 3, 9, 1], limit=6)
    [0, 0, 1, 2, 3]
    """
    if limit < 1:
        raise ValueError(f"limit must be >= 1, got {limit!r}")
    numbers, wave, filled = [], 0, 0
    for size in sizes:
        if filled and filled + size > limit:
            wave, filled = wave + 1, 0
        numbers.append(wave)
        filled += size
    return numbers
