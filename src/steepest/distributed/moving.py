"""The weight's side of a step, on shards."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from steepest import averaging
from steepest.apply import apply_, apply_all_, brought_back, turned
from steepest.distributed.local import squares, update
from steepest.distributed.reductions import Program
from steepest.distributed.shard import Shard, Stack
from steepest.stepping import Move


def advance(shards: Sequence[Shard]) -> Program[list[Move]]:
    """Update state and weights of shards that can be one stack and whose rule runs on shards."""
    stack = Stack(shards)
    found = yield from update(stack)
    rule, directions = stack.rule, stack.split(found.direction)
    if rule.step.whole_network or rule.constraint == "hyperball":
        momenta = stack.split(found.momentum)
        moves: list[Move] = []
        for shard, direction, momentum in zip(shards, directions, momenta, strict=True):
            moved = yield from move(shard, direction, momentum)
            moves += [moved] if moved is not None else []
        return moves
    weights, stored = [shard.weight for shard in shards], [shard.stored for shard in shards]
    apply_all_(weights, directions, stack.hypers, rule, stack.layout.batch_dims, stored)
    if rule.average:
        averaging.update_all_(weights, [shard.kept for shard in shards], stack.hypers)
    return []


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
