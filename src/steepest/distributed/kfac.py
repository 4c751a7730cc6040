"""K-FAC on several ranks: covariances of the whole batch, and each layer's factors on one rank.

Layers of DTensors lie on the ranks of their mesh, plain ones on those of a group of replicas. A layer's owner
gets the sums that every rank has gathered and the whole gradient, keeps covariances and bases, and sends
every rank its part of the direction.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from steepest.distributed.agreement import agree
from steepest.distributed.balance import divide_evenly
from steepest.distributed.collectives import all_reduce, control_device
from steepest.distributed.jobs import Direction, Job
from steepest.distributed.kfac_state import release_factors
from steepest.distributed.kfac_statistics import sum_statistics
from steepest.distributed.layout import Layout, layout_of, local, replicated
from steepest.distributed.owned import run
from steepest.distributed.places import Place
from steepest.distributed.shard import Shard
from steepest.linalg.precision import at_least_float32
from steepest.preconditioners.kfac.direction import LayerStep, started
from steepest.preconditioners.kfac.factors import squared_length
from steepest.preconditioners.kfac.hooks import LayerWatch
from steepest.preconditioners.kfac.layers import Layer
from steepest.rule import Rule


@dataclass(frozen=True)
class Placed:
    """A layer of several ranks, how its parameters lie on them, and which one owns it."""

    layer: Layer
    layouts: tuple[Layout, ...]
    owner: int

    @property
    def group(self) -> ProcessGroup:
        """The ranks."""
        return self.layouts[0].group

    @property
    def mine(self) -> bool:
        """Whether this rank owns it."""
        return self.owner == self.layouts[0].rank


def placed(groups: Iterable[Sequence[Layer]], replicas: ProcessGroup | None) -> dict[Layer, Placed]:
    """Return the layers that several ranks hold, by layer; group after group, so that early owners stay.

    Raises:
        ValueError: if weight and bias of a layer are on different ranks.
    """
    found: dict[Layer, Placed] = {}
    loads: dict[Hashable, Sequence[int]] = {}
    for layers in groups:
        lanes: dict[Hashable, list[tuple[Layer, tuple[Layout, ...]]]] = {}
        for layer in layers:
            if layouts := layer_layouts(layer, replicas):
                lanes.setdefault((layouts[0].group, layouts[0].size), []).append((layer, layouts))
        for lane, members in lanes.items():
            costs = [layer_cost(layer) for layer, _ in members]
            owners, loads[lane] = divide_evenly(costs, members[0][1][0].size, loads.get(lane))
            for (layer, layouts), owner in zip(members, owners, strict=True):
                found[layer] = Placed(layer, layouts, owner)
    return found


def layer_layouts(layer: Layer, replicas: ProcessGroup | None) -> tuple[Layout, ...]:
    """Return the layout of each parameter of a layer that several ranks hold; none for any other.

    Raises:
        ValueError: if weight and bias of a layer are on different ranks.
    """
    found = [layout_of(p) for p in layer.parameters]
    if all(layout is None for layout in found) and replicas is not None:
        return tuple(replicated(p.shape, 0, replicas) for p in layer.parameters)
    layouts = tuple(layout for layout in found if layout is not None)
    if len({layout.mesh for layout in layouts}) > 1 or len(layouts) not in (0, len(found)):
        raise ValueError(
            f"weight and bias of layer {layer.name!r} form one matrix and must be DTensors of one mesh, or "
            f"both plain tensors, got {' and '.join(type(p).__name__ for p in layer.parameters)}; "
            f"skip=[{layer.name!r}] leaves it out"
        )
    return layouts


def layer_cost(layer: Layer) -> int:
    """Return about how many multiply-adds a step of a layer takes: cubes of sides, products with bases."""
    _, m, n = layer.matrix_shape()
    if layer.kind.diagonal_input:  # stored (inputs, outputs), and no basis for inputs
        return n**3 + m * n * n
    return m**3 + n**3 + m * n * (m + n)


def require_same_gradients(layers: Mapping[Layer, Placed]) -> None:
    """Raise on all ranks if a parameter of these layers has a gradient on some of its ranks only."""
    entries = [(one.layer.name, p) for one in layers.values() for p in one.layer.parameters]
    names, params = [name for name, _ in entries], [p for _, p in entries]
    group = {"params": params, "param_names": names, "nonfinite": "propagate"}
    agree([group], places_of_layers(layers))


def require_seen(layers: Sequence[Placed], watch: LayerWatch) -> None:
    """Raise on all ranks if one of these layers was seen by none of its ranks."""
    lanes: dict[ProcessGroup, list[Layer]] = {}
    for one in layers:
        lanes.setdefault(one.group, []).append(one.layer)
    for group, members in lanes.items():
        seen = torch.tensor(
            [layer.pending.inputs is not None for layer in members],
            dtype=torch.int32,
            device=control_device(group, members[0].weight.device.type),
        )
        for layer, count in zip(members, all_reduce(seen, (group,), "agreement").tolist(), strict=True):
            if not count:
                watch.require(layer)


def directions(
    work: Sequence[tuple[Placed, LayerStep]], watch: LayerWatch, traffic: torch.dtype | None = None
) -> dict[int, Tensor]:
    """Return this rank's parts of the directions by the parameter's id; all ranks pass the same layers.

    The gradients of a step are this rank's parts.

    Raises:
        RuntimeError: on all ranks, if a layer was seen by none at its first step.
    """
    require_seen([one for one, step in work if not started(step.state)], watch)
    seen = [one for one, _ in work if one.layer.observing]
    sum_statistics(
        [(one.layer, one.owner, one.layouts[0]) for one in seen],
        watch.loss_average is not None,
        watch.outputs,
    )
    for one, step in work:
        if not one.mine:
            step.state.setdefault("step", torch.zeros(())).add_(1)
            release_factors(step.state)
    found = run([_LayerJob(one, step, watch) for one, step in work], traffic)
    return {id(shard.param): direction for shard, direction, _ in found if direction is not None}


class _LayerJob(Job):
    """The gradients of a layer go to its owner, which keeps its factors, and directions come back."""

    def __init__(self, one: Placed, step: LayerStep, watch: LayerWatch) -> None:
        dtype = at_least_float32(one.layer.weight.dtype)
        entries = enumerate(zip(one.layer.parameters, one.layouts, step.grads, strict=True))
        self.step, self.watch = step, watch
        shards = [
            Shard({}, i, p, layout, Rule(), {}, local(p), grad.to(dtype), {})
            for i, (p, layout, grad) in entries
            if grad is not None
        ]
        super().__init__(shards, one.owner)

    @property
    def key(self) -> tuple[Hashable, ...]:
        """Every layer has statistics of its own."""
        return (id(self),)

    def ask(self) -> list[Tensor]:
        """Return the gradients."""
        return [shard.grad for shard in self.shards]

    def solve(self, jobs: Sequence[Any], inputs: Sequence[Tensor]) -> list[list[Tensor]]:
        """Update the factors and return the directions."""
        whole = {shard.index: stack[0] for shard, stack in zip(self.shards, inputs, strict=True)}
        layer = self.step.layer
        grads = [whole.get(i) for i in range(len(layer.parameters))]
        found = self.step.directions(grads, self.watch.means(layer))
        return [[found[shard.index][None] for shard in self.shards]]

    def conclude(self, answers: Sequence[Sequence[Tensor]]) -> Iterator[Direction]:
        """Return the parts of the directions."""
        for shard, direction in zip(self.shards, answers[0], strict=True):
            yield shard, direction, None


def total_length(parts: Iterable[tuple[Any, Tensor, Tensor]], layouts: Iterable[Layout | None]) -> Tensor:
    """Return :func:`squared_length` of whole parameters of which ``parts`` are this rank's."""
    shares: dict[tuple[ProcessGroup, ...], list[tuple[Any, Tensor, Tensor]]] = {}
    for part, layout in zip(parts, layouts, strict=True):
        shares.setdefault(() if layout is None else layout.shard_groups, []).append(part)
    total = torch.zeros(())
    for groups, mine in shares.items():
        share = all_reduce(squared_length(mine), groups, "network")
        total = total.to(share) + share
    return total


def places_of_layers(layers: Mapping[Layer, Placed]) -> dict[Tensor, Place]:
    """Return the place of every parameter of these layers, for what ranks agree on before a step."""
    return {
        p: Place(Rule(), layout, "owned")
        for one in layers.values()
        for p, layout in zip(one.layer.parameters, one.layouts, strict=True)
    }


def layouts_of(layers: Mapping[Layer, Placed]) -> dict[int, Layout]:
    """Return the layout of every parameter of these layers by its id."""
    return {
        id(p): layout
        for one in layers.values()
        for p, layout in zip(one.layer.parameters, one.layouts, strict=True)
    }
