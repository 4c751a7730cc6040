"""Pieces of tensors from rank to rank, many in one all-to-all.

A message says which region of which item goes from whom to whom. Every rank knows all messages, so that it
knows what it sends and what it gets; the buffers hold no headers. Within a buffer messages stand in the order
of the other side's rank, then of the list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Size, Tensor
from torch.distributed import ProcessGroup

from steepest.distributed.collectives import Pending, all_to_all

Region = tuple[tuple[int, ...], tuple[int, ...]]
"""Offset and size, along every dimension, of the block of a tensor that one rank holds."""


@dataclass(frozen=True)
class Message:
    """``region`` of the tensor with number ``item``, from rank ``source`` to rank ``target``."""

    item: int
    source: int
    target: int
    region: Region

    @property
    def shape(self) -> Size:
        """The shape of what is sent."""
        return Size(self.region[1])


class Exchange:
    """The messages of one all-to-all as rank ``me`` of ``ranks`` sees them."""

    def __init__(self, messages: Sequence[Message], ranks: int, me: int) -> None:
        self.outgoing = sorted((m for m in messages if m.source == me), key=lambda m: m.target)
        self.incoming = sorted((m for m in messages if m.target == me), key=lambda m: m.source)
        self.send_counts, self.receive_counts = [0] * ranks, [0] * ranks
        for message in self.outgoing:
            self.send_counts[message.target] += message.shape.numel()
        for message in self.incoming:
            self.receive_counts[message.source] += message.shape.numel()
        self.silent = all(m.source == m.target for m in messages)
        """Whether no rank has anything for another: then nothing is sent."""

    def pack(self, piece: Callable[[Message], Tensor], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the flat buffer of ``piece(message)`` for every outgoing message, cast to ``dtype``."""
        buffer = torch.empty(sum(self.send_counts), dtype=dtype, device=device)
        sizes = [message.shape.numel() for message in self.outgoing]
        for message, place in zip(self.outgoing, buffer.split(sizes), strict=True):
            place.view(message.shape).copy_(piece(message))
        return buffer

    def start(self, buffer: Tensor, group: ProcessGroup, label: str) -> Pending:
        """Send a packed buffer; the result is for :meth:`unpack`."""
        if self.silent:
            return Pending(None, buffer, label)
        return all_to_all(buffer, self.send_counts, self.receive_counts, group, label)

    def unpack(self, buffer: Tensor) -> Iterator[tuple[Message, Tensor]]:
        """Yield every message received, with its content in its shape; views of the buffer."""
        sizes = [message.shape.numel() for message in self.incoming]
        for message, content in zip(self.incoming, buffer.split(sizes), strict=True):
            yield message, content.view(message.shape)


def cut(whole: Tensor, region: Region) -> Tensor:
    """Return a region of a tensor, sharing its memory."""
    for dim, (offset, size) in enumerate(zip(*region, strict=True)):
        whole = whole.narrow(dim, offset, size)
    return whole


@dataclass(frozen=True)
class Route:
    """The ways of one tensor: to its owner, and from there to everyone.

    ``regions`` holds for each rank what it has of the tensor; those of ``sources`` make up the whole, without
    overlap.
    """

    owner: int
    regions: tuple[Region, ...]
    sources: tuple[int, ...]

    def inward(self, item: int) -> list[Message]:
        """Return the messages that make the tensor whole on its owner; none if the owner has all of it."""
        if self.sources == (self.owner,):
            return []
        parts = [Message(item, source, self.owner, self.regions[source]) for source in self.sources]
        return [part for part in parts if part.shape.numel()]

    def outward(self, item: int) -> list[Message]:
        """Return the messages that give every rank its part of the owner's result."""
        parts = [Message(item, self.owner, rank, region) for rank, region in enumerate(self.regions)]
        return [part for part in parts if part.shape.numel()]
