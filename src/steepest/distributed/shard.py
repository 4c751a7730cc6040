"""Distributed parameters in one step, as this rank sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from steepest.distributed.layout import Layout, local
from steepest.rounding import Weight, compute_dtype, store_stochastically_, weight_of
from steepest.rule import Rule
from steepest.stepping import BESIDE
from steepest.views import narrow_names


@dataclass
class Shard:
    """A parameter, its gradient and its numbers in this step.

    ``rule`` is for the whole shape, and ``hypers`` what it reads: ``lr`` with the rate of that shape,
    ``step`` already counted up. ``weight`` is this rank's part of the parameter, ``grad`` that of the descent
    gradient in the dtype of the arithmetic, L2 decay included.
    """

    group: Mapping[str, Any]
    index: int
    param: Tensor
    layout: Layout
    rule: Rule
    hypers: dict[str, Any]
    weight: Tensor
    grad: Tensor
    state: dict[str, Any]

    @cached_property
    def kept(self) -> dict[str, Tensor]:
        """This rank's part of the state by name; shares memory."""
        return {name: local(value) for name, value in self.state.items()}

    @cached_property
    def buffers(self) -> dict[str, Tensor]:
        """What the rule keeps of the parameter's shape, as stacks (k, m, n) in the dtype of the arithmetic.

        Call :meth:`save` after changing them: buffers stored in fewer bits are copies.
        """
        narrow = self._narrow
        return {
            name: self.layout.stack(value.to(self.grad.dtype) if name in narrow else value)
            for name, value in self.kept.items()
            if name not in BESIDE and value.shape == self.weight.shape
        }

    def save(self) -> None:
        """Round the buffers that are stored in fewer bits."""
        for name in self._narrow:
            kept, value = self.kept[name], self.buffers[name].reshape(self.weight.shape)
            if self.group.get("rounding") == "stochastic":
                store_stochastically_(kept, value, self.kept["step"])
            else:
                kept.copy_(value)

    @cached_property
    def stored(self) -> Weight:
        """How the weight is read and written."""
        return weight_of(self.weight, self.kept, self.group)

    @cached_property
    def _narrow(self) -> list[str]:
        names = narrow_names(self.rule, self.weight, self.group)
        return [name for name in names if self.kept[name].dtype != compute_dtype(self.weight)]


class Stack:
    """Shards with one rule, one layout and the same numbers, as one stack (k, m, n).

    Small tensors cost calls, not arithmetic: many in a stack cost what one does.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        first = shards[0]
        self.shards, self.rule, self.layout = shards, first.rule, first.layout
        self.hypers = first.hypers
        if isinstance(counts := first.hypers.get("step"), Tensor) and len(shards) > 1:
            counts = torch.cat([shard.hypers["step"] for shard in shards])
            self.hypers = {**first.hypers, "step": counts}
        self.grad = _joined([self.layout.stack(shard.grad) for shard in shards])
        self.buffers = {name: _joined([shard.buffers[name] for shard in shards]) for name in first.buffers}

    def save(self) -> None:
        """Write the buffers back, rounded where they are stored in fewer bits."""
        if len(self.shards) > 1:
            for name, value in self.buffers.items():
                own = [shard.buffers[name] for shard in self.shards]
                torch._foreach_copy_(own, value.chunk(len(own)))
        for shard in self.shards:
            shard.save()

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return a stack in the shapes of the weights."""
        return x.reshape(len(self.shards), *self.shards[0].weight.shape).unbind()


def _joined(stacks: list[Tensor]) -> Tensor:
    return stacks[0] if len(stacks) == 1 else torch.cat(stacks)
