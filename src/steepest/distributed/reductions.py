"""Sums over ranks that many parameters wait for, in one collective per phase.

A program is a generator: it yields the partial sums it needs and is sent the totals. Programs that run
together go on in step, so that what all of them wait for at one time travels together.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from steepest.distributed.collectives import all_reduce

Result = TypeVar("Result")


@dataclass(frozen=True)
class Partial:
    """This rank's part of a sum over the ranks of every one of some groups."""

    value: Tensor
    groups: tuple[ProcessGroup, ...]


Program = Generator[Sequence[Partial], list[Tensor], Result]


def total(partials: Sequence[Partial], label: str) -> list[Tensor]:
    """Return the sums, with one collective for each set of groups and dtype.

    Every rank of the groups must call this with partial sums of the same shapes in the same order.
    """
    results = [partial.value for partial in partials]
    together: dict[object, list[int]] = {}
    for i, partial in enumerate(partials):
        if partial.groups:
            key = (partial.groups, partial.value.dtype, partial.value.device)
            together.setdefault(key, []).append(i)
    for places in together.values():
        flat = torch.cat([results[i].reshape(-1) for i in places])
        all_reduce(flat, partials[places[0]].groups, label)
        parts = flat.split([results[i].numel() for i in places])
        for i, part in zip(places, parts, strict=True):
            results[i] = part.reshape(results[i].shape)
    return results


def run_together(programs: Iterable[Program[Result]], label: str) -> list[Result]:
    """Run programs to their end and return their results in order."""
    waiting: list[tuple[int, Program[Result], Sequence[Partial]]] = []
    results: dict[int, Result] = {}

    def go_on(place: int, program: Program[Result], totals: list[Tensor] | None) -> None:
        try:
            asked = next(program) if totals is None else program.send(totals)
        except StopIteration as end:
            results[place] = end.value
        else:
            waiting.append((place, program, asked))

    for place, program in enumerate(programs):
        go_on(place, program, None)
    while waiting:
        now, waiting = waiting, []
        totals = iter(total([partial for _, _, asked in now for partial in asked], label))
        for place, program, asked in now:
            go_on(place, program, [next(totals) for _ in asked])
    return [results[place] for place in range(len(results))]
