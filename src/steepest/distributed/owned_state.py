"""Checkpoints of state that owners keep: shown to all ranks, and taken back.

An owner holds the state of its matrices whole. A state dict shows every such tensor as a DTensor over the
parameter's mesh: what has the parameter's shape with the parameter's placements, anything else (factors,
bases, eigenvalues) cut along its first dimension wherever the parameter is cut. So every rank saves its
share, and what is loaded may have been saved by any number of ranks. Replicas of plain parameters show it
whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Size, Tensor
from torch.distributed.tensor import Replicate, Shard

from steepest.distributed.balance import waves
from steepest.distributed.layout import Layout, layout_of, local, sharded_dim
from steepest.distributed.ownership import Owned, kind, owners
from steepest.distributed.transport import Exchange, Message, Route, cut
from steepest.distributed.whole_state import complete, release, template
from steepest.groups import describe
from steepest.rule import Rule

WAVE = 2**26
"""About how many entries are on their way at once."""
State = MutableMapping[Tensor, dict[str, Any]]


@dataclass(frozen=True)
class Kept:
    """A parameter whose owner keeps its state."""

    group: Mapping[str, Any]
    index: int
    param: Tensor
    rule: Rule
    layout: Layout
    owner: int

    def template(self) -> dict[str, Tensor]:
        """Return names, shapes and dtypes of the state."""
        return template(self.rule, self.param, self.group)

    def complete(self, own: MutableMapping[str, Any]) -> None:
        """Make the state on its owner, unless it is there."""
        complete(own, self.rule, self.param, self.group, describe(self.group, self.index))

    def release(self, own: MutableMapping[str, Any]) -> None:
        """Drop what only the owner keeps."""
        release(own)


@dataclass(frozen=True)
class _Transfer:
    """One state tensor on its way; ``value`` is what this rank has to send of it, whole or its part."""

    kept: Kept
    name: str
    layout: Layout
    dtype: torch.dtype
    messages: Callable[[int], list[Message]]
    value: Tensor | None
    whole: bool

    def piece(self, message: Message) -> Tensor:
        """Return what a message of this rank holds."""
        assert self.value is not None
        return cut(self.value, message.region) if self.whole else self.value


def kept(groups: Iterable[Mapping[str, Any]], owned: Owned) -> list[Kept]:
    """Return all parameters with a whole rule, in order."""
    groups = list(groups)
    owner = owners(groups, owned)
    return [
        Kept(group, i, p, *known, owner[p])
        for group in groups
        for i, p in enumerate(group["params"])
        if p.numel() and (known := owned(group, p)) is not None and kind(known[0]) == "whole"
    ]


def shown(params: Sequence[Kept], state: State) -> dict[Tensor, dict[str, Tensor]]:
    """Return the owners' state on every rank, as DTensors of parameters on meshes; a collective."""
    transfers: list[_Transfer] = []
    for one in params:
        own = state[one.param]
        if one.owner == one.layout.rank:
            one.complete(own)
        for name, like in one.template().items():
            layout = state_layout(one.layout, like.shape)
            route = Route(one.owner, layout.regions, layout.replica_of(one.owner))
            transfers.append(_Transfer(one, name, layout, like.dtype, route.outward, own.get(name), True))
    found: dict[Tensor, dict[str, Tensor]] = {}
    for transfer, parts in _move(transfers):
        param, layout = transfer.kept.param, transfer.layout
        part = torch.empty(layout.local_shape, dtype=transfer.dtype, device=param.device)
        for _, content in parts:
            part.copy_(content)
        found.setdefault(param, {})[transfer.name] = layout.wrap(part)
    return found


def place(params: Sequence[Kept], state: State) -> None:
    """Bring loaded state to the owners and drop it elsewhere; a collective if any of it is sharded.

    Plain tensors are taken to be whole and equal on all ranks.
    """
    transfers: list[_Transfer] = []
    for one in params:
        own = state.get(one.param, {})
        for name in one.template():
            layout = layout_of(own[name]) if name in own else None
            if layout is None:
                continue
            if layout.mesh != one.layout.mesh:
                own[name] = own[name].full_tensor()
                continue
            route = Route(one.owner, layout.regions, layout.replica_of(one.owner))
            part = local(own[name])
            if route.sources == (one.owner,):
                own[name] = part
            else:
                transfers.append(_Transfer(one, name, layout, part.dtype, route.inward, part, False))
    for transfer, parts in _move(transfers):
        one, layout = transfer.kept, transfer.layout
        whole = torch.empty(
            layout.shape if one.owner == layout.rank else 0, dtype=transfer.dtype, device=one.param.device
        )
        for message, content in parts:
            cut(whole, message.region).copy_(content)
        state[one.param][transfer.name] = whole
    for one in params:
        if one.owner != one.layout.rank and one.param in state:
            one.release(state[one.param])


def _move(transfers: Sequence[_Transfer]) -> Iterator[tuple[_Transfer, list[tuple[Message, Tensor]]]]:
    """Send all, one dtype and group of ranks after the other, and yield each with what came of it."""
    lanes: dict[Any, list[_Transfer]] = {}
    for one in transfers:
        lanes.setdefault((one.layout.group, one.dtype, one.kept.param.device.type), []).append(one)
    for lane in lanes.values():
        numbers = waves([one.layout.shape.numel() for one in lane], WAVE)
        for wave in range(numbers[-1] + 1):
            members = [one for one, number in zip(lane, numbers, strict=True) if number == wave]
            yield from _move_wave(members)


def _move_wave(members: Sequence[_Transfer]) -> Iterator[tuple[_Transfer, list[tuple[Message, Tensor]]]]:
    layout, device = members[0].layout, members[0].kept.param.device
    messages = [message for i, one in enumerate(members) for message in one.messages(i)]
    exchange = Exchange(messages, layout.size, layout.rank)
    buffer = exchange.pack(lambda m: members[m.item].piece(m), members[0].dtype, device)
    received = exchange.start(buffer, layout.group, "state").wait()
    arrived: list[list[tuple[Message, Tensor]]] = [[] for _ in members]
    for message, content in exchange.unpack(received):
        arrived[message.item].append((message, content))
    yield from zip(members, arrived, strict=True)


def state_layout(layout: Layout, shape: Size) -> Layout:
    """Return how a state tensor of this shape lies on the ranks of its parameter."""
    if shape == layout.shape:
        return layout
    placements = tuple(
        Replicate() if sharded_dim(placement) is None or not shape else Shard(0)
        for placement in layout.placements
    )
    return Layout(shape, 0, layout.mesh, placements, layout.replicas)
