"""Which rules need whole matrices, what of them, and on which rank.

Two kinds of rule need a matrix in one place. Of an *oracle* rule only the norm's oracle does (Muon, MuAdam,
Scion): momentum and a diagonal statistic are updated where the shards are, the oracle's input travels to the
owner and its answer back, and the owner keeps nothing. Of a *whole* rule everything does (Shampoo, SOAP,
KL-Shampoo): the gradient travels, and the owner keeps the state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

from torch import Size, Tensor

from steepest.distributed.balance import cost, divide_evenly
from steepest.distributed.layout import Layout
from steepest.momentum import EMA, HeavyBall, NoMomentum
from steepest.preconditioners import Diagonal, Identity, InwardOnly, Preconditioner
from steepest.rule import Rule
from steepest.steps import Clipped, DualScaled, MeanSide, Polyak, Radius, UnitLMO
from steepest.views import stack_shape

Kind = Literal["oracle", "whole"]
Owned = Callable[[Mapping[str, Any], Tensor], tuple[Rule, Layout] | None]
"""Tells the rule and layout of a group's parameter that some rank needs whole, else None."""
_FACTORS = (Clipped, DualScaled, MeanSide, Polyak, Radius, UnitLMO)
"""Step lengths that multiply a direction by a number of its shape alone."""


@lru_cache(maxsize=4096)
def kind(rule: Rule) -> Kind:
    """Return what of a rule needs a whole matrix, given that something does.

    >>> import steepest
    >>> kind(Rule(norm=steepest.Spectral())), kind(Rule(preconditioner=steepest.Kronecker()))
    ('oracle', 'whole')
    """
    apart = type(rule) is Rule and type(rule.momentum) in (EMA, HeavyBall, NoMomentum)
    plain = type(rule.preconditioner) is Identity
    if apart and (plain or (_elementwise(rule.preconditioner) and type(rule.step) in _FACTORS)):
        return "oracle"
    return "whole"


def _elementwise(part: Preconditioner) -> bool:
    if type(part) is InwardOnly:
        return _elementwise(part.inner)
    return type(part) in (Identity, Diagonal)


def owners(groups: Iterable[Mapping[str, Any]], owned: Owned) -> dict[Tensor, int]:
    """Return the owner, a rank of its layout's group, of every parameter that has one.

    Whole rules are divided first, group after group, so that an owner with state stays when parameters are
    added or numbers of an oracle change.
    """
    found: dict[Tensor, int] = {}
    entries = [
        [(p, *known) for p in group["params"] if (known := owned(group, p)) is not None] for group in groups
    ]
    loads: dict[Any, Sequence[int]] = {}
    for wanted in ("whole", "oracle"):
        for group in entries:
            lanes: dict[Any, list[tuple[Tensor, int]]] = {}
            for param, rule, layout in group:
                if kind(rule) == wanted:
                    work = _cost(rule, layout.shape, layout.batch_dims)
                    lanes.setdefault((layout.group, layout.size), []).append((param, work))
            for lane, items in lanes.items():
                chosen, loads[lane] = divide_evenly([work for _, work in items], lane[1], loads.get(lane))
                found.update(zip((param for param, _ in items), chosen, strict=True))
    return found


@lru_cache(maxsize=4096)
def _cost(rule: Rule, shape: Size, batch_dims: int) -> int:
    return cost(rule, stack_shape(shape, batch_dims))
