"""K-FAC over replicas: covariances of the whole batch, and each layer's inverses on one rank.

Every rank has seen its share of the batch. With n_r examples, D_r the sum of d d^T over the output gradients
d of rank r's loss, and N examples in all, the covariance of one example's output gradient is
sum_r n_r^2 D_r / N where each rank's loss is a mean over its examples, and sum_r D_r / N where it is a sum:
DistributedDataParallel averages gradients over ranks, and so the loss is the mean of theirs. Inputs are
averaged over the rows of all ranks. All of this is one all-reduce, in steps that gather statistics.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableMapping, Sequence

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from steepest.distributed.balance import divide_evenly
from steepest.distributed.collectives import all_reduce, size_of
from steepest.distributed.transport import from_owners
from steepest.linalg.precision import at_least_float32
from steepest.preconditioners.kfac.direction import FACTOR_STATE
from steepest.preconditioners.kfac.layers import Layer
from steepest.preconditioners.kfac.statistics import Batch


def sum_statistics(
    layers: Sequence[Layer], group: ProcessGroup, averaged_loss: bool, outputs: bool, new: Collection[Layer]
) -> None:
    """Replace what each rank has gathered by what all have; every rank must pass the same layers.

    ``outputs`` says whether output gradients are gathered. Of ``new`` layers those that no rank has seen
    are left as if nothing had been gathered, so that they can be told.
    """
    parts = [_flat(layer, averaged_loss, outputs) for layer in layers]
    by_dtype: dict[torch.dtype, list[int]] = {}
    for i, part in enumerate(parts):
        by_dtype.setdefault(part.dtype, []).append(i)
    for places in by_dtype.values():
        flat = all_reduce(torch.cat([parts[i] for i in places]), (group,), "covariances")
        for i, total in zip(places, flat.split([parts[i].numel() for i in places]), strict=True):
            layers[i].pending = _batch(layers[i], total, averaged_loss, outputs, layers[i] in new)


def _flat(layer: Layer, averaged_loss: bool, outputs: bool) -> Tensor:
    """Return rows, examples, sum of inputs and of outputs, weighted by the square of examples, in one row."""
    weight, pending = layer.weight, layer.pending
    dtype = at_least_float32(weight.dtype)
    if pending.inputs is None:
        return torch.zeros(2 + sum(_sizes(layer, outputs)), dtype=dtype, device=weight.device)
    n = sum(pending.examples.values())
    rows = torch.as_tensor(pending.rows, dtype=dtype, device=weight.device)
    sums = [rows.reshape(1), rows.new_full((1,), n), pending.inputs.reshape(-1)]
    if outputs:
        assert pending.outputs is not None
        sums.append(pending.outputs.reshape(-1) * (n * n if averaged_loss else 1))
    return torch.cat([value.to(dtype) for value in sums])


def _batch(layer: Layer, total: Tensor, averaged_loss: bool, outputs: bool, new: bool) -> Batch:
    """Return sums over all ranks as if one had gathered them."""
    rows, n = total[0], total[1]
    if new and not rows > 0:
        return Batch()
    sides = total[2:].split(_sizes(layer, outputs))
    inputs = sides[0] if layer.kind.diagonal_input else _square(sides[0])
    seen = None
    if outputs:
        seen = _square(sides[1])
        if averaged_loss:  # one rank with all examples would have gathered this
            seen = seen / (n * n)
    return Batch(inputs, rows, seen, {0: n})  # pyright: ignore[reportArgumentType]


def _sizes(layer: Layer, outputs: bool) -> list[int]:
    """Return how many entries the sums over inputs and over output gradients have."""
    _, m, n = layer.matrix_shape()
    if layer.kind.diagonal_input:
        return [m, n * n] if outputs else [m]
    return [n * n, m * m] if outputs else [n * n]


def _square(flat: Tensor) -> Tensor:
    side = round(flat.numel() ** 0.5)
    return flat.reshape(side, side)


def layer_owners(layers: Sequence[Layer], group: ProcessGroup) -> dict[Layer, int]:
    """Return the rank that inverts each layer's covariances: cubes of their sides, divided evenly."""
    costs: list[int] = []
    for layer in layers:
        _, m, n = layer.matrix_shape()
        costs.append((0 if layer.kind.diagonal_input else m**3) + n**3 + m * n * (m + n))
    return dict(zip(layers, divide_evenly(costs, size_of(group))[0], strict=True))


def share_directions(
    layers: Sequence[Layer],
    owners: Mapping[Layer, int],
    own: Mapping[int, Sequence[Tensor]],
    group: ProcessGroup,
    traffic: torch.dtype | None,
) -> list[list[Tensor]]:
    """Return the directions of all layers' parameters; ``own`` are those found here, by the layer's place."""
    places = [(i, p) for i, layer in enumerate(layers) for p in layer.parameters]
    found = from_owners(
        [(owners[layers[i]], p.shape, at_least_float32(p.dtype)) for i, p in places],
        dict(enumerate(_in_places(own, layers))),
        group,
        "directions from owners",
        layers[0].weight.device,
        traffic,
    )
    directions: list[list[Tensor]] = [[] for _ in layers]
    for (i, _), direction in zip(places, found, strict=True):
        directions[i].append(direction)
    return directions


def _in_places(own: Mapping[int, Sequence[Tensor]], layers: Sequence[Layer]) -> list[Tensor]:
    nothing = torch.empty(0)
    return [t for i, layer in enumerate(layers) for t in own.get(i, [nothing] * len(layer.parameters))]


def share_factors(
    layers: Sequence[Layer],
    templates: Sequence[Mapping[str, Tensor]],
    owners: Mapping[Layer, int],
    states: Sequence[MutableMapping[str, Tensor]],
    group: ProcessGroup,
) -> None:
    """Give every rank the factors that owners keep; ``templates`` are states on the meta device."""
    places = [(i, name) for i, own in enumerate(templates) for name in sorted(own) if name != "step"]
    found = from_owners(
        [(owners[layers[i]], templates[i][name].shape, templates[i][name].dtype) for i, name in places],
        {k: states[i][name] for k, (i, name) in enumerate(places) if name in states[i]},
        group,
        "state",
        layers[0].weight.device,
    )
    for (i, name), value in zip(places, found, strict=True):
        states[i][name] = value.clone()


def release_factors(state: MutableMapping[str, Tensor]) -> None:
    """Drop what a layer's owner alone keeps."""
    for name in FACTOR_STATE - {"step"}:
        state.pop(name, None)
