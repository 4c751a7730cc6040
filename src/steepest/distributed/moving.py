"""The weight's side of a step, on shards."""

from __future__ import annotations

from torch import Tensor

from steepest import averaging
from steepest.apply import apply_, brought_back, turned
from steepest.distributed.local import squares, update
from steepest.distributed.reductions import Program
from steepest.distributed.shard import Shard
from steepest.stepping import Move


def advance(shard: Shard) -> Program[Move | None]:
    """Update state and weight of a shard whose rule runs on shards."""
    found = yield from update(shard)
    return (yield from move(shard, found.direction, found.momentum))


def move(shard: Shard, direction: Tensor, momentum: Tensor | None) -> Program[Move | None]:
    """Move this rank's part of the weight, or return the move if its length is the whole network's."""
    rule, weight = shard.rule, shard.weight
    direction = direction.reshape(weight.shape)
    if rule.step.whole_network:
        assert momentum is not None
        momentum = momentum.reshape(weight.shape)
        return Move(weight, rule, shard.hypers, direction, momentum, shard.stored, shard.layout.shard_groups)
    if rule.constraint == "hyperball":
        yield from _turn(shard, direction)
    else:
        apply_(weight, direction, shard.hypers, rule, shard.layout.batch_dims, shard.stored)
    if rule.average:
        averaging.update_(weight, shard.kept, shard.hypers)
    return None


def _turn(shard: Shard, direction: Tensor) -> Program[None]:
    """As :func:`steepest.apply.apply_` on the hyperball, with the norms of whole matrices."""
    layout, groups, lr = shard.layout, shard.layout.matrix_groups, shard.hypers["lr"]
    weight = shard.stored.read(shard.weight)
    stack, step = layout.stack(weight), layout.stack(direction)
    radius, size = (x.sqrt() for x in (yield [squares(stack, groups), squares(step, groups)]))
    moved = turned(stack, step, lr, radius, size)
    [reached] = yield [squares(moved, groups)]
    weight.copy_(brought_back(stack, moved, lr, radius, size, reached.sqrt()).reshape(weight.shape))
    shard.stored.write(shard.weight, weight)
