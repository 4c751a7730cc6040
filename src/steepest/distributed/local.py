"""Rules that run where the shards are, with sums over rows, columns and matrices as their only traffic.

For a matrix (m, n) split over ranks, the squares of its row lengths are summed over the ranks that split the
columns, those of its column lengths over the ranks that split the rows, and those of its norm over both. Each
part of a rule says here what it needs of the whole matrix; parts that are not here need it in one place.
Squares are summed in float64, so that none overflows or vanishes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from torch import Tensor
from torch.distributed import ProcessGroup

from steepest.distributed.layout import Layout
from steepest.distributed.reductions import Partial, Program
from steepest.distributed.shard import Stack
from steepest.dual_averaging import DualAveraging
from steepest.momentum import EMA, HeavyBall, NoMomentum
from steepest.norms import ColNorm, Frobenius, Max, Norm, RowNorm
from steepest.numeric import divide, inner, length
from steepest.operator_norms import Scaled
from steepest.preconditioners import (
    Coordinates,
    Diagonal,
    Equilibration,
    Identity,
    InwardOnly,
    Preconditioner,
)
from steepest.preconditioners.inward import OneWay
from steepest.rule import Rule, Update
from steepest.steps import Clipped, DualScaled, EnergyFloor, MeanSide, Polyak, Radius, RMSMatched, UnitLMO

_MOMENTA = (NoMomentum, HeavyBall, EMA)
_NORMS = (Frobenius, Max, RowNorm, ColNorm)
_FACTORS = (DualScaled, Polyak, Radius, Clipped, MeanSide, UnitLMO)
"""Step lengths that multiply by a number of the group or of the shape."""


@lru_cache(maxsize=4096)
def elementwise(rule: Rule) -> bool:
    """Return whether every entry moves by its own gradients alone, but for numbers of the whole shape.

    >>> import steepest
    >>> elementwise(Rule(step=steepest.DualScaled())), elementwise(Rule(norm=steepest.Frobenius()))
    (True, False)
    """
    if rule.constraint:
        return False
    if type(rule) is DualAveraging:
        return True
    if type(rule) is not Rule or type(rule.momentum) not in _MOMENTA or type(rule.step) not in _FACTORS:
        return False
    if type(rule.preconditioner) not in (Identity, Diagonal):
        return False
    return rule.solves or (type(_base(rule.norm)) is Max and not rule.step.dual_scaled)


@lru_cache(maxsize=4096)
def supports(rule: Rule, layout: Layout) -> bool:
    """Return whether a rule runs on shards of this layout."""
    return elementwise(rule) or (
        type(rule) is Rule
        and type(_base(rule.norm)) in _NORMS
        and type(rule.momentum) in _MOMENTA
        and (type(rule.step) in _FACTORS or type(rule.step) in (EnergyFloor, RMSMatched))
        and _runs(rule.preconditioner, layout)
    )


def _runs(part: Preconditioner, layout: Layout) -> bool:
    if type(part) is InwardOnly:
        return _runs(part.inner, layout)
    if type(part) is Equilibration:  # rolled columns would need those of other ranks
        return part.mixing != "lateral" or not layout.column_groups
    return type(part) in (Identity, Diagonal)


def _base(norm: Norm) -> Norm:
    return norm.base if type(norm) is Scaled else norm


def update(shards: Stack) -> Program[Update]:
    """Return this rank's part of the step and of what the oracle saw: ``Rule.update`` with its sums told."""
    rule, layout, hypers, state, grad = shards.rule, shards.layout, shards.hypers, shards.buffers, shards.grad
    coordinates = yield from _coordinates(rule.preconditioner, grad, shards)
    before = rule.momentum.where == "before"
    m = rule.momentum(grad, state, hypers) if before else grad
    if rule.solves:
        s = coordinates.solve(m)
    else:
        t = coordinates.into(m)
        u = yield from _direction(rule.norm, t, layout)
        s = coordinates.back(u)
        if rule.step.dual_scaled:
            [dual] = yield [Partial(inner(t, u), layout.matrix_groups)]
            s = s * dual
    s = yield from _step(s, m, shards)
    if not before:
        s = rule.momentum(s, state, hypers)
    shards.save()
    return Update(s, m)


def _coordinates(part: Preconditioner, grad: Tensor, shards: Stack) -> Program[Coordinates]:
    if type(part) is InwardOnly:
        return OneWay((yield from _coordinates(part.inner, grad, shards)))
    if type(part) is not Equilibration:
        coordinates = part.prepare(grad, shards.buffers, shards.hypers)
        assert coordinates is not None  # none of these skips a step
        return coordinates
    layout = shards.layout
    wanted: list[Partial] = []
    if part.axis != "columns":
        wanted.append(squares(grad, layout.column_groups, -1))
    if part.axis != "rows":
        wanted.append(squares(grad, layout.row_groups, -2))
    sums = [value.sqrt() for value in (yield wanted)]
    rows = None if part.axis == "columns" else sums[0]
    columns = None if part.axis == "rows" else sums[-1]
    return part.coordinates(rows, columns, shards.hypers["eps"], grad.dtype)


def _direction(norm: Norm, t: Tensor, layout: Layout) -> Program[Tensor]:
    if isinstance(norm, Scaled):
        return (yield from _direction(norm.base, t, layout)) * norm.factor_of(*layout.matrix_shape)
    if type(norm) is Max:
        return norm.direction(t)
    if type(norm) is Frobenius:
        wanted = squares(t, layout.matrix_groups)
    elif type(norm) is RowNorm:
        wanted = squares(t, layout.column_groups, -1)
    else:
        wanted = squares(t, layout.row_groups, -2)
    [size] = yield [wanted]
    return divide(t, size.sqrt())


def _step(s: Tensor, m: Tensor, shards: Stack) -> Program[Tensor]:
    step, layout = shards.rule.step, shards.layout
    if type(step) is UnitLMO:
        factor = step.factor_of(*layout.matrix_shape)
        return s if factor == 1.0 else s * factor
    if type(step) is EnergyFloor:
        size, energy = yield [squares(s, layout.matrix_groups), squares(m, layout.matrix_groups)]
        return step.stretched(s, size.sqrt(), energy.sqrt(), shards.hypers)
    if type(step) is RMSMatched:
        [size] = yield [squares(s, layout.matrix_groups)]
        rows, columns = layout.matrix_shape
        return step.matched(s, size.sqrt(), rows * columns)
    return step(s, m, shards.hypers)


def squares(x: Tensor, groups: Sequence[ProcessGroup], dim: int | tuple[int, int] = (-2, -1)) -> Partial:
    """Return this rank's part of the sum of squares along ``dim``, over the ranks of ``groups``."""
    return Partial(length(x, dim).square_(), tuple(groups))
