"""The step of rules that need whole matrices: to the owners, solved, and back, while others travel.

The jobs of every owner are cut into waves. While an owner solves one wave, the next is on its way to it, and
the answers to the one before are on their way back. All ranks start the same collectives in the same order,
whatever they own.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from steepest.distributed.balance import waves
from steepest.distributed.collectives import Pending
from steepest.distributed.jobs import Direction, Job, job
from steepest.distributed.layout import Layout
from steepest.distributed.settings import Settings
from steepest.distributed.shard import Shard
from steepest.distributed.transport import Exchange, Message, Route, cut

WAVE = 2**22
"""How many entries an owner gets in one wave, unless a single matrix has more."""
ANSWERS = 2
"""The most answers a job has, for numbering them."""
PARAMETERS = 2
"""The most parameters a job has, for numbering them."""


def directions(
    shards: Sequence[Shard], settings: Settings, owners: Mapping[Tensor, int]
) -> Iterator[Direction]:
    """Return every shard with this rank's part of its direction S and of the momentum M, as they get ready.

    The first questions are on their way when this returns. S is None in a step that only gathers statistics,
    M wherever no whole-network number needs it. All ranks must call this with the same parameters in the same
    order, and take all that it returns.
    """
    return run([job(shard, owners[shard.param]) for shard in shards], settings.traffic)


def run(jobs: Sequence[Job], traffic: torch.dtype | None) -> Iterator[Direction]:
    """Run jobs, the same in the same order on all ranks, and yield what they conclude; take all of it."""
    lanes: dict[Hashable, list[Job]] = {}
    for one in jobs:
        first = one.shards[0]
        lane = first.layout.group, first.grad.dtype, first.grad.device.type
        lanes.setdefault(lane, []).append(one)
    pipes = [_pipe(lane, traffic) for lane in lanes.values()]
    started = [(pipe, pipe.collect(0)) for pipe in pipes]
    return itertools.chain.from_iterable(_drain(pipe, first) for pipe, first in started)


def _pipe(jobs: Sequence[Job], traffic: torch.dtype | None) -> _Pipe:
    """Return the pipe of jobs of one group of ranks and one dtype."""
    first = jobs[0].shards[0]
    items = tuple((tuple(shard.layout for shard in one.shards), one.owner, one.answers) for one in jobs)
    layout = first.layout
    plan = _plan(items, tuple(_wave_of(jobs)), layout.size, layout.rank)
    return _Pipe(jobs, plan, layout.group, layout.rank, traffic or first.grad.dtype)


def _drain(pipe: _Pipe, coming: _Coming) -> Iterator[Direction]:
    """Run a pipe whose first wave is on its way, always with a wave travelling in either direction."""
    leaving: _Leaving | None = None
    for following in range(1, len(pipe.plan) + 1):
        current = coming
        if following < len(pipe.plan):
            coming = pipe.collect(following)
        solved = pipe.solve(current)
        if leaving is not None:
            yield from pipe.conclude(leaving)
        leaving = solved
    assert leaving is not None  # a plan has a wave
    yield from pipe.conclude(leaving)


def _wave_of(jobs: Sequence[Job]) -> list[int]:
    """Return the wave of every job: those of one owner that are solved together follow each other."""
    numbers = [0] * len(jobs)
    by_owner: dict[int, dict[Hashable, list[int]]] = {}
    for i, one in enumerate(jobs):
        by_owner.setdefault(one.owner, {}).setdefault(one.key, []).append(i)
    for stacks in by_owner.values():
        order = [i for stack in stacks.values() for i in stack]
        sizes = [sum(shard.layout.shape.numel() for shard in jobs[i].shards) for i in order]
        for i, wave in zip(order, waves(sizes, WAVE), strict=True):
            numbers[i] = wave
    return numbers


@dataclass(frozen=True)
class _Wave:
    """The jobs of a wave, by number, and their two exchanges as this rank sees them."""

    jobs: tuple[int, ...]
    there: Exchange
    back: Exchange


@lru_cache(maxsize=64)
def _plan(
    items: tuple[tuple[tuple[Layout, ...], int, int], ...], wave_of: tuple[int, ...], ranks: int, me: int
) -> list[_Wave]:
    """Return the waves of jobs, given as layouts, owner and number of answers, as rank ``me`` sees them."""
    plan: list[_Wave] = []
    for wave in range(max(wave_of) + 1):
        jobs = tuple(i for i, number in enumerate(wave_of) if number == wave)
        there: list[Message] = []
        back: list[Message] = []
        for i in jobs:
            layouts, owner, answers = items[i]
            for k, layout in enumerate(layouts):
                route = Route(owner, layout.regions, layout.replica_of(owner))
                there += route.inward(_number(i, k))
                back += [message for a in range(answers) for message in route.outward(_number(i, k, a))]
        plan.append(_Wave(jobs, Exchange(there, ranks, me), Exchange(back, ranks, me)))
    return plan


def _number(job: int, parameter: int, answer: int = 0) -> int:
    """Return the number of a question or answer of a job; :func:`_place` undoes it."""
    return (job * PARAMETERS + parameter) * ANSWERS + answer


def _place(number: int) -> tuple[int, int]:
    """Return job and parameter of a number."""
    return divmod(number // ANSWERS, PARAMETERS)


@dataclass
class _Coming:
    """Questions on their way to the owners."""

    wave: _Wave
    parts: dict[int, list[Tensor]]
    pending: Pending


@dataclass
class _Leaving:
    """Answers on their way from the owners."""

    wave: _Wave
    pending: Pending


@dataclass
class _Pipe:
    """The three stations of a wave."""

    jobs: Sequence[Job]
    plan: Sequence[_Wave]
    group: ProcessGroup
    me: int
    traffic: torch.dtype

    def collect(self, number: int) -> _Coming:
        """Update what is local of a wave and send what the owners need."""
        wave = self.plan[number]
        parts = {i: self.jobs[i].ask() for i in wave.jobs}
        some = parts[wave.jobs[0]][0]

        def piece(message: Message) -> Tensor:
            i, k = _place(message.item)
            return parts[i][k]

        buffer = wave.there.pack(piece, self.traffic, some.device)
        return _Coming(wave, parts, wave.there.start(buffer, self.group, "matrices to owners"))

    def solve(self, coming: _Coming) -> _Leaving:
        """Solve what this rank owns of a wave and send the answers."""
        wave = coming.wave
        wholes, stacks = self._stacks(wave.jobs, coming.parts)
        for message, content in wave.there.unpack(coming.pending.wait()):
            cut(wholes[message.item], message.region).copy_(content)
        answers: dict[int, Tensor] = {}
        for members, inputs in stacks:
            jobs = [self.jobs[i] for i in members]
            for a, answer in enumerate(jobs[0].solve(jobs, inputs)):
                for k, stack in enumerate(answer):
                    answers.update((_number(i, k, a), one) for i, one in zip(members, stack, strict=True))
        some = coming.parts[wave.jobs[0]][0]
        buffer = wave.back.pack(lambda m: cut(answers[m.item], m.region), self.traffic, some.device)
        return _Leaving(wave, wave.back.start(buffer, self.group, "directions from owners"))

    def _stacks(
        self, numbers: Iterable[int], parts: Mapping[int, Sequence[Tensor]]
    ) -> tuple[dict[int, Tensor], list[tuple[list[int], list[Tensor]]]]:
        """Return a place for every whole matrix that this rank owns, and the stacks they are views of.

        Matrices that are whole here already are put in their places.
        """
        groups: dict[Hashable, list[int]] = {}
        for i in numbers:
            if self.jobs[i].owner == self.me:
                groups.setdefault(self.jobs[i].key, []).append(i)
        wholes: dict[int, Tensor] = {}
        stacks: list[tuple[list[int], list[Tensor]]] = []
        for members in groups.values():
            inputs: list[Tensor] = []
            for k, shard in enumerate(self.jobs[members[0]].shards):
                layout = shard.layout
                stack = parts[members[0]][k].new_empty(len(members), *layout.shape)
                inputs.append(stack)
                wholes.update((_number(i, k), one) for i, one in zip(members, stack, strict=True))
                if layout.replica_of(self.me) == (self.me,):
                    for i in members:
                        wholes[_number(i, k)].copy_(parts[i][k])
            stacks.append((members, inputs))
        return wholes, stacks

    def conclude(self, leaving: _Leaving) -> Iterator[Direction]:
        """Hand out what has come back of a wave."""
        wave = leaving.wave
        back = {m.item: content for m, content in wave.back.unpack(leaving.pending.wait())}
        for i in wave.jobs:
            job = self.jobs[i]
            answers: list[list[Tensor]] = []
            for a in range(job.answers):
                found = [back.get(_number(i, k, a)) for k in range(len(job.shards))]
                grads = [shard.grad for shard in job.shards]
                answers.append(
                    [
                        torch.empty_like(g) if x is None else x.to(g.dtype)
                        for g, x in zip(grads, found, strict=True)
                    ]
                )
            yield from job.conclude(answers)
