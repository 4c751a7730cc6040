"""Sums over the examples of all ranks, on the owner of each layer.

Every rank has seen its share of the batch. With n_r examples, D_r the sum of d d^T over the output gradients
d of rank r's loss, and N examples in all, the covariance of one example's output gradient is
sum_r n_r^2 D_r / N where each rank's loss is a mean over its examples, and sum_r D_r / N where it is a sum:
DistributedDataParallel and ``fully_shard`` average gradients over ranks, so that the loss is the mean of
theirs. Inputs are averaged over the rows of all ranks. Ranks that see the same examples, as those of tensor
parallelism do, change none of these means.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steepest.distributed.balance import waves
from steepest.distributed.layout import Layout
from steepest.distributed.transport import Exchange, Message
from steepest.linalg.precision import at_least_float32
from steepest.preconditioners.kfac.layers import Layer
from steepest.preconditioners.kfac.statistics import Batch

WAVE = 2**26
"""About how many entries a rank sends at once, unless one layer has more."""
Entry = tuple[Layer, int, Layout]
"""A layer, the rank of its owner, and the layout of its weight, whose ranks have seen it."""


def sum_statistics(entries: Sequence[Entry], averaged_loss: bool, outputs: bool) -> None:
    """Give the owner of each layer what all ranks have gathered, and leave nothing with the others.

    ``outputs`` says whether output gradients are gathered. Every rank must pass the same layers in the same
    order. One rank's statistics cross the wire once: (p - 1) / p of their size is sent by each of p ranks.
    """
    lanes: dict[object, list[Entry]] = {}
    for entry in entries:
        weight = entry[0].weight
        key = entry[2].group, at_least_float32(weight.dtype), weight.device.type
        lanes.setdefault(key, []).append(entry)
    for lane in lanes.values():
        numbers = waves([sum(_sizes(layer, outputs)) for layer, *_ in lane], WAVE)
        for wave in range(numbers[-1] + 1):
            members = [one for one, number in zip(lane, numbers, strict=True) if number == wave]
            _sum_wave(members, averaged_loss, outputs)


def _sum_wave(entries: Sequence[Entry], averaged_loss: bool, outputs: bool) -> None:
    layout, weight = entries[0][2], entries[0][0].weight
    messages = [
        Message(i, source, owner, ((0,), (2 + sum(_sizes(layer, outputs)),)))
        for i, (layer, owner, _) in enumerate(entries)
        for source in range(layout.size)
    ]
    exchange = Exchange(messages, layout.size, layout.rank)
    buffer = exchange.pack(
        lambda message: _flat(entries[message.item][0], averaged_loss, outputs),
        at_least_float32(weight.dtype),
        weight.device,
    )
    received = exchange.start(buffer, layout.group, "covariances").wait()
    totals: dict[int, Tensor] = {}
    for message, content in exchange.unpack(received):  # in the order of ranks
        known = totals.get(message.item)
        totals[message.item] = content if known is None else known.add_(content)
    for i, (layer, *_) in enumerate(entries):
        layer.pending = _batch(layer, totals[i], averaged_loss, outputs) if i in totals else Batch()


def _flat(layer: Layer, averaged_loss: bool, outputs: bool) -> Tensor:
    """Return rows, examples, sum of inputs and of outputs, weighted by the square of examples, in one row."""
    weight, pending = layer.weight, layer.pending
    like = torch.empty(0, dtype=at_least_float32(weight.dtype), device=weight.device)
    if pending.inputs is None:
        return like.new_zeros(2 + sum(_sizes(layer, outputs)))
    n = sum(pending.examples.values())
    rows = torch.as_tensor(pending.rows).to(like)
    sums = [rows.reshape(1), torch.as_tensor(n).to(like).reshape(1), pending.inputs.reshape(-1)]
    if outputs:
        assert pending.outputs is not None
        sums.append(pending.outputs.reshape(-1) * (n * n if averaged_loss else 1))
    return torch.cat([value.to(like) for value in sums])


def _batch(layer: Layer, total: Tensor, averaged_loss: bool, outputs: bool) -> Batch:
    """Return sums over all ranks as if one had gathered them; not a number if there is nothing."""
    rows, n = total[0], total[1]
    sides = total[2:].split(_sizes(layer, outputs))
    inputs = sides[0] if layer.kind.diagonal_input else _square(sides[0])
    seen = None
    if outputs:
        seen = _square(sides[1])
        if averaged_loss:  # one rank with all examples would have gathered this
            seen = seen / (n * n)
    return Batch(inputs, rows, seen, {0: n})


def _sizes(layer: Layer, outputs: bool) -> list[int]:
    """Return how many entries the sums over inputs and over output gradients have."""
    _, m, n = layer.matrix_shape()
    if layer.kind.diagonal_input:
        return [m, n * n] if outputs else [m]
    return [n * n, m * m] if outputs else [n * n]


def _square(flat: Tensor) -> Tensor:
    side = round(flat.numel() ** 0.5)
    return flat.reshape(side, side)
