"""Every collective this library makes, in one place, so that none goes uncounted or waits for ever.

Bytes are counted per rank as a bandwidth-optimal algorithm sends them, with b the bytes of the tensor and p
the ranks of the group: 2 b (p - 1) / p for an all-reduce, b (p - 1) for an all-gather of b bytes from each,
and for an all-to-all what is addressed to other ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

TIMEOUT = timedelta(minutes=5)
"""How long a collective on the CPU is waited for; on devices the process group's own timeout holds."""


@dataclass(frozen=True)
class Record:
    """One collective as one rank saw it: bytes handed over, and bytes sent to other ranks."""

    kind: str
    label: str
    ranks: int
    payload: int
    sent: float


@dataclass
class Traffic:
    """The collectives made while counting."""

    records: list[Record] = field(default_factory=list)

    @property
    def sent(self) -> float:
        """Bytes this rank sent to others."""
        return sum(record.sent for record in self.records)

    @property
    def calls(self) -> int:
        """How many collectives there were."""
        return len(self.records)

    def by_label(self) -> dict[str, float]:
        """Return the bytes sent for each purpose."""
        totals: dict[str, float] = {}
        for record in self.records:
            totals[record.label] = totals.get(record.label, 0.0) + record.sent
        return totals


_counting: list[Traffic] = []


@contextmanager
def counting() -> Iterator[Traffic]:
    """Count this rank's collectives inside the block.

    >>> from steepest.distributed import counting
    >>> with counting() as traffic:
    ...     pass  # optimizer.step()
    >>> traffic.sent
    0
    """
    traffic = Traffic()
    _counting.append(traffic)
    try:
        yield traffic
    finally:
        _counting[:] = [other for other in _counting if other is not traffic]


def _count(kind: str, label: str, ranks: int, payload: int, sent: float) -> None:
    for traffic in _counting:
        traffic.records.append(Record(kind, label, ranks, payload, sent))


class Pending:
    """A collective under way."""

    def __init__(self, work: Any, result: Tensor, name: str) -> None:
        self._work, self._result, self._name = work, result, name

    def wait(self) -> Tensor:
        """Return the result. On a device the current stream waits, not the host.

        Raises:
            RuntimeError: when another rank is gone, or has not come within the timeout.
        """
        if self._work is not None:
            work, self._work = self._work, None
            try:
                finished = work.wait(TIMEOUT) if self._result.device.type == "cpu" else work.wait()
            except RuntimeError as error:
                raise RuntimeError(f"{self._name} failed, is another rank gone? {error}") from error
            if finished is False:
                raise RuntimeError(f"{self._name} was not finished within {TIMEOUT}")
        return self._result


def all_reduce(tensor: Tensor, groups: Iterable[ProcessGroup], label: str) -> Tensor:
    """Sum a contiguous tensor, in place, over the ranks of each group in turn, and return it."""
    for group in groups:
        ranks = dist.get_world_size(group)
        if ranks == 1 or not tensor.numel():
            continue
        payload = tensor.numel() * tensor.element_size()
        _count("all_reduce", label, ranks, payload, 2 * payload * (ranks - 1) / ranks)
        work = dist.all_reduce(tensor, group=group, async_op=True)
        Pending(work, tensor, f"the all-reduce of {label} over {ranks} ranks").wait()
    return tensor


def all_to_all(
    send: Tensor, send_counts: Sequence[int], receive_counts: Sequence[int], group: ProcessGroup, label: str
) -> Pending:
    """Send ``send_counts[r]`` consecutive entries of a flat tensor to each rank r of the group.

    The result is flat: ``receive_counts[r]`` entries from each rank, in the order of ranks. ``send`` must
    stay as it is until the result is there.
    """
    ranks, own = dist.get_world_size(group), dist.get_rank(group)
    received = send.new_empty(sum(receive_counts))
    payload = send.numel() * send.element_size()
    _count("all_to_all", label, ranks, payload, payload - send_counts[own] * send.element_size())
    if ranks == 1:
        return Pending(None, received.copy_(send), label)
    work = dist.all_to_all_single(
        received, send, list(receive_counts), list(send_counts), group=group, async_op=True
    )
    return Pending(work, received, f"the all-to-all of {label} over {ranks} ranks")


def all_gather(tensor: Tensor, group: ProcessGroup, label: str) -> Pending:
    """Gather a flat tensor of the same size from every rank; the result holds them in the order of ranks."""
    ranks = dist.get_world_size(group)
    payload = tensor.numel() * tensor.element_size()
    _count("all_gather", label, ranks, payload, payload * (ranks - 1))
    if ranks == 1:
        return Pending(None, tensor.clone(), label)
    gathered = tensor.new_empty(ranks * tensor.numel())
    work = dist.all_gather_into_tensor(gathered, tensor, group=group, async_op=True)
    return Pending(work, gathered, f"the all-gather of {label} over {ranks} ranks")


def redistributed(tensor: DTensor, like: DTensor) -> DTensor:
    """Return a DTensor with the placements of another; counted as one copy of the part that is sent."""
    part = tensor.to_local()
    payload = part.numel() * part.element_size()
    _count("redistribute", "gradients", like.device_mesh.size(), payload, payload)
    return tensor.redistribute(like.device_mesh, like.placements)


def made_whole(tensor: Tensor, label: str) -> Tensor:
    """Return all of a DTensor on every rank of its mesh; counted as an all-gather of its parts."""
    assert isinstance(tensor, DTensor)
    part, ranks = tensor.to_local(), tensor.device_mesh.size()
    payload = part.numel() * part.element_size()
    if any(not placement.is_replicate() for placement in tensor.placements):
        _count("all_gather", label, ranks, payload, payload * (ranks - 1))
    return tensor.full_tensor()


def size_of(group: ProcessGroup) -> int:
    """Return how many ranks a group has."""
    return dist.get_world_size(group)


def rank_in(group: ProcessGroup) -> int:
    """Return this process's rank in a group."""
    return dist.get_rank(group)


def control_device(group: ProcessGroup, fallback: str) -> torch.device:
    """Return where small facts known to the host are best exchanged: on the CPU where the group can.

    ``fallback`` is the device type of the mesh, for groups with a device backend alone.
    """
    return torch.device("cpu" if "cpu" in str(dist.get_backend_config(group)) else fallback)


_spanning: dict[tuple[int, ...], tuple[Any, ProcessGroup]] = {}


def group_of(mesh: DeviceMesh) -> ProcessGroup:
    """Return one process group over all ranks of a mesh; every rank of the mesh must ask for it."""
    if mesh.ndim == 1:
        return mesh.get_group(0)
    world = dist.group.WORLD
    assert world is not None
    if mesh.size() == dist.get_world_size():
        return world
    ranks = tuple(mesh.mesh.flatten().tolist())
    if ranks not in _spanning or _spanning[ranks][0] is not world:  # else it died with another world
        group = dist.new_group(list(ranks), use_local_synchronization=True)
        assert isinstance(group, ProcessGroup)  # this rank is one of them
        _spanning[ranks] = world, group
    return _spanning[ranks][1]
