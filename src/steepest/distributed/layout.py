"""Where the entries of a distributed parameter are: which rank holds which block, and what is cut.

A parameter of shape (*batch, m, ...) is a stack of matrices (m, rest). A mesh dimension that shards one of
its dimensions cuts the batch, the rows or the columns; one that does not holds copies. Entries are split over
the first three kinds (sums over them are partial), and equal over the last.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import torch
import torch.distributed as dist
from torch import Size, Tensor
from torch.distributed import ProcessGroup
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement, _StridedShard

from steepest.distributed import collectives
from steepest.distributed.transport import Region, cut
from steepest.views import as_stack, stack_shape

Cut = Literal["batch", "rows", "columns"]


@dataclass(frozen=True)
class Layout:
    """How a parameter lies on the ranks of a mesh, or whole on every rank of ``replicas``."""

    shape: Size
    batch_dims: int
    mesh: DeviceMesh | None = None
    placements: tuple[Placement, ...] = ()
    replicas: ProcessGroup | None = None

    @cached_property
    def group(self) -> ProcessGroup:
        """One process group over all ranks that hold a part or a copy."""
        if self.mesh is None:
            assert self.replicas is not None
            return self.replicas
        return collectives.group_of(self.mesh)

    @cached_property
    def size(self) -> int:
        """How many ranks that is."""
        return collectives.size_of(self.group)

    @cached_property
    def rank(self) -> int:
        """This process's rank among them."""
        return collectives.rank_in(self.group)

    @cached_property
    def row_groups(self) -> tuple[ProcessGroup, ...]:
        """The groups over which the rows of a matrix are split."""
        return self._groups("rows")

    @cached_property
    def column_groups(self) -> tuple[ProcessGroup, ...]:
        """The groups over which the columns of a matrix are split."""
        return self._groups("columns")

    @cached_property
    def matrix_groups(self) -> tuple[ProcessGroup, ...]:
        """The groups over which the entries of one matrix are split."""
        return self._groups("rows", "columns")

    @cached_property
    def shard_groups(self) -> tuple[ProcessGroup, ...]:
        """The groups over which the entries of the parameter are split."""
        return self._groups("batch", "rows", "columns")

    @property
    def cuts_matrices(self) -> bool:
        """Whether no rank holds a whole matrix."""
        return bool(self.matrix_groups)

    def _groups(self, *wanted: Cut) -> tuple[ProcessGroup, ...]:
        if self.mesh is None:
            return ()
        return tuple(
            self.mesh.get_group(i)
            for i, placement in enumerate(self.placements)
            if self.mesh.size(i) > 1
            and (dim := sharded_dim(placement)) is not None
            and self._cut(dim) in wanted
        )

    def _cut(self, dim: int) -> Cut:
        if dim < self.batch_dims:
            return "batch"
        return "rows" if dim == self.batch_dims and len(self.shape) > self.batch_dims + 1 else "columns"

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """The block that each rank of :attr:`group` holds."""
        return tuple(self._region(coordinate) for coordinate in self._coordinates)

    def replica_of(self, rank: int) -> tuple[int, ...]:
        """Return the ranks of :attr:`group` that together hold one copy, ``rank`` among them."""
        copies = self._copies
        return tuple(other for other in range(self.size) if copies[other] == copies[rank])

    @cached_property
    def _coordinates(self) -> tuple[tuple[int, ...], ...]:
        """Where each rank of the group stands in the mesh."""
        if self.mesh is None:
            return tuple((rank,) for rank in range(self.size))
        places = itertools.product(*map(range, self.mesh.shape))
        found = dict(zip(self.mesh.mesh.flatten().tolist(), places, strict=True))
        return tuple(found[dist.get_global_rank(self.group, rank)] for rank in range(self.size))

    @cached_property
    def _copies(self) -> tuple[tuple[int, ...], ...]:
        """Which copy of the parameter each rank of the group has a part of."""
        if self.mesh is None:
            return self._coordinates
        whole = [i for i, placement in enumerate(self.placements) if sharded_dim(placement) is None]
        return tuple(tuple(coordinate[i] for i in whole) for coordinate in self._coordinates)

    def _region(self, coordinate: Sequence[int]) -> Region:
        offset, size = [0] * len(self.shape), list(self.shape)
        if self.mesh is None:
            return tuple(offset), tuple(size)
        for i in _order(self.placements):
            dim = sharded_dim(self.placements[i])
            if dim is None:
                continue
            # torch.chunk's division: full blocks of ceil(size / ranks), then a smaller one, then empty ones.
            block = -(-size[dim] // self.mesh.size(i))
            start = min(coordinate[i] * block, size[dim])
            offset[dim] += start
            size[dim] = min(block, size[dim] - start)
        return tuple(offset), tuple(size)

    @cached_property
    def matrix_shape(self) -> tuple[int, int]:
        """The shape (m, n) of one whole matrix."""
        return stack_shape(self.shape, self.batch_dims)[1:]

    def stack(self, local: Tensor) -> Tensor:
        """Return this rank's block as (k, m, n) of what it holds."""
        return as_stack(local, self.batch_dims)

    def wrap(self, local: Tensor) -> Tensor:
        """Return a tensor with the parameter's shape and placements, of which ``local`` is this rank's part.

        For values of another shape, such as factors, only where matrices are not cut; see :meth:`beside`.
        """
        if self.mesh is None:
            return local
        own = self
        if not self.cuts_matrices and local.shape != self.local_shape:
            own = self.beside(Size((*self.shape[: self.batch_dims], *local.shape[self.batch_dims :])))
        stride = torch.empty(own.shape, device="meta").stride()
        return DTensor.from_local(
            local, self.mesh, own.placements, run_check=False, shape=own.shape, stride=stride
        )

    def beside(self, shape: Size) -> Layout:
        """Return the layout of a value kept for every matrix, where matrices are not cut.

        Its batch dimensions are sharded as the parameter's are, the rest is whole.
        """
        if shape == self.shape:
            return self
        cuts = [sharded_dim(placement) for placement in self.placements]
        placements = tuple(
            placement if dim is not None and dim < self.batch_dims else Replicate()
            for placement, dim in zip(self.placements, cuts, strict=True)
        )
        return Layout(shape, self.batch_dims, self.mesh, placements, self.replicas)

    @cached_property
    def local_shape(self) -> Size:
        """The shape of what this rank holds."""
        return Size(self.regions[self.rank][1])

    def part(self, whole: Tensor) -> Tensor:
        """Return this rank's block of a whole tensor that every rank has; shares its memory."""
        return cut(whole, self.regions[self.rank])


def sharded_dim(placement: Placement) -> int | None:
    """Return the tensor dimension that a placement shards, or None."""
    return placement.dim if isinstance(placement, Shard | _StridedShard) else None


def _order(placements: Sequence[Placement]) -> Iterable[int]:
    """Return mesh dimensions in the order in which they cut: strided ones after those to their right."""
    strided = [i for i, p in enumerate(placements) if isinstance(p, _StridedShard)]
    return [i for i in range(len(placements)) if i not in strided] + strided[::-1]


def layout_of(param: Tensor, batch_dims: int = 0) -> Layout | None:
    """Return the layout of a DTensor, None for any other tensor.

    Raises:
        ValueError: for placements other than Shard and Replicate.
    """
    if not isinstance(param, DTensor):
        return None
    return _layout(dist.group.WORLD, param.shape, batch_dims, param.device_mesh, tuple(param.placements))


def replicated(shape: Size, batch_dims: int, replicas: ProcessGroup) -> Layout:
    """Return the layout of a plain tensor that every rank of a group holds whole."""
    return _replicated(shape, batch_dims, replicas)


@lru_cache(maxsize=4096)
def _replicated(shape: Size, batch_dims: int, replicas: ProcessGroup) -> Layout:
    return Layout(shape, batch_dims, replicas=replicas)


# An equal mesh in another world of processes has other groups, so that the world is part of the key.
@lru_cache(maxsize=4096)
def _layout(
    world: ProcessGroup, shape: Size, batch_dims: int, mesh: DeviceMesh, placements: tuple[Placement, ...]
) -> Layout:
    for i, placement in enumerate(placements):
        if not isinstance(placement, Shard | _StridedShard | Replicate):
            raise ValueError(
                "a parameter must be sharded or replicated along every dimension of its mesh, got "
                f"{placement} along dimension {i} of {mesh}"
            )
        if isinstance(placement, _StridedShard):
            within = 1
            for j in range(i + 1, len(placements)):
                within *= mesh.size(j) if sharded_dim(placements[j]) == placement.dim else 1
            if within != placement.split_factor:
                raise ValueError(
                    f"{placement} along dimension {i} of {mesh} interleaves blocks: the split factor must be "
                    f"the number of shards along the mesh dimensions after it, {within}"
                )
    return Layout(shape, batch_dims, mesh, placements)


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a tensor, sharing memory; the tensor itself if it is not distributed."""
    if not isinstance(tensor, DTensor):
        return tensor
    part = tensor.to_local()
    return part.wait() if isinstance(part, AsyncCollectiveTensor) else part


def local_gradient(param: Tensor, grad: Tensor, label: str) -> Tensor:
    """Return this rank's part of a gradient, placed as its parameter is.

    Raises:
        RuntimeError: for a plain gradient of a DTensor, which ``label`` names.
    """
    if not isinstance(param, DTensor):
        return grad
    if not isinstance(grad, DTensor):
        raise RuntimeError(
            f"{label} is a DTensor with a plain gradient; give it one of the same mesh and placements"
        )
    if grad.placements != param.placements:
        grad = collectives.redistributed(grad, param)
    return local(grad)
