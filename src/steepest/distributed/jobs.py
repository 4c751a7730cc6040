"""What is asked of a matrix's owner, by the kind of its rule; see :mod:`steepest.distributed.ownership`.

A job is what is solved at once in one step: a parameter, or of K-FAC a layer with weight and bias. On every
rank :meth:`Job.ask` gives the parts of the owner's input that this rank holds; the owner makes them whole and
calls :meth:`Job.solve`; :meth:`Job.conclude` gets the parts of the answers that this rank needs. Jobs with
equal keys are solved in one stack.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from torch import Tensor

from steepest.distributed.ownership import kind
from steepest.distributed.shard import Shard
from steepest.distributed.whole_state import complete, release
from steepest.groups import describe
from steepest.rule import Rule
from steepest.stepping import BESIDE
from steepest.views import as_stack, gather, narrow_names, scatter, state_as_stack

Direction = tuple[Shard, Tensor | None, Tensor | None]
"""A shard with this rank's part of the direction, None for no move, and of what the oracle saw."""


class Job(ABC):
    """Parameters whose matrices their owner needs together."""

    def __init__(self, shards: Sequence[Shard], owner: int) -> None:
        self.shards, self.owner = tuple(shards), owner

    @property
    @abstractmethod
    def key(self) -> tuple[Hashable, ...]:
        """What jobs that are solved together have in common."""

    @property
    def answers(self) -> int:
        """How many tensors come back for each parameter."""
        return 1

    @abstractmethod
    def ask(self) -> list[Tensor]:
        """Return this rank's part of what the owner needs, one tensor for each parameter."""

    @abstractmethod
    def solve(self, jobs: Sequence[Any], inputs: Sequence[Tensor]) -> list[list[Tensor]]:
        """Return every answer for ``jobs``, all like this one, on their owner.

        ``inputs`` and each answer hold one tensor for each parameter: a stack of whole ones, over the jobs.
        """

    @abstractmethod
    def conclude(self, answers: Sequence[Sequence[Tensor]]) -> Iterator[Direction]:
        """Return what this rank's parts of the answers mean."""


class MatrixJob(Job):
    """A job of one parameter."""

    def __init__(self, shard: Shard, owner: int) -> None:
        super().__init__([shard], owner)
        self.shard = shard

    @property
    def key(self) -> tuple[Hashable, ...]:
        """One rule, layout and dtype."""
        shard = self.shard
        return type(self), id(shard.group), shard.rule, shard.layout, shard.grad.dtype

    def _stacked(self, inputs: Tensor) -> Tensor:
        return as_stack(inputs, self.shard.layout.batch_dims + 1)


class OracleJob(MatrixJob):
    """Momentum and diagonal coordinates are local: the owner gets T and returns the step's U."""

    def ask(self) -> list[Tensor]:
        """Update momentum and statistic, and return T."""
        shard, rule = self.shard, self.shard.rule
        grad = shard.layout.stack(shard.grad)
        coordinates = rule.preconditioner.prepare(grad, shard.buffers, shard.hypers)
        assert coordinates is not None  # such preconditioners skip no step
        self._coordinates, self._seen = coordinates, grad
        if rule.momentum.where == "before":
            self._seen = rule.momentum(grad, shard.buffers, shard.hypers)
            shard.save()
        return [coordinates.into(self._seen).reshape(shard.grad.shape)]

    def solve(self, jobs: Sequence[Any], inputs: Sequence[Tensor]) -> list[list[Tensor]]:
        """Return the oracle's answers with the step's length."""
        update = _inner(self.shard.rule).update(self._stacked(inputs[0]), {}, self.shard.hypers)
        assert update is not None  # nothing is skipped without coordinates
        return [[update.direction.reshape(inputs[0].shape)]]

    def conclude(self, answers: Sequence[Sequence[Tensor]]) -> Iterator[Direction]:
        """Return the direction in the weight's coordinates, after late momentum, and M."""
        shard, rule = self.shard, self.shard.rule
        direction = self._coordinates.back(shard.layout.stack(answers[0][0]))
        if rule.momentum.where == "after":
            direction = rule.momentum(direction, shard.buffers, shard.hypers)
            shard.save()
        yield shard, direction.reshape(shard.grad.shape), self._seen.reshape(shard.grad.shape)


@lru_cache(maxsize=1024)
def _inner(rule: Rule) -> Rule:
    """Return what of an oracle rule the owner computes. A factor of the shape commutes with the way back."""
    return Rule(norm=rule.norm, step=rule.step)


class WholeJob(MatrixJob):
    """The whole rule runs on the owner, which keeps the state: it gets G and returns S, and M if needed."""

    @property
    def key(self) -> tuple[Hashable, ...]:
        """The count of steps besides; a count on a device is each parameter's own."""
        count = self.shard.hypers.get("step")
        return *super().key, id(self) if isinstance(count, Tensor) else count

    @property
    def answers(self) -> int:
        """None for a step that only gathers statistics; two if the whole network's <M, S> is needed."""
        rule = self.shard.rule
        if rule.preconditioner.skipped and self.shard.hypers["step"] <= rule.preconditioner.skipped:
            return 0
        return 2 if rule.step.whole_network else 1

    def ask(self) -> list[Tensor]:
        """Return G."""
        if self.owner != self.shard.layout.rank:
            release(self.shard.state)
        return [self.shard.grad]

    def solve(self, jobs: Sequence[Any], inputs: Sequence[Tensor]) -> list[list[Tensor]]:
        """Update the state and return S and M."""
        first, group, rule, grads = self.shard, self.shard.group, self.shard.rule, inputs[0]
        shape, batch_dims = first.layout.shape, first.layout.batch_dims
        for one in (job.shard for job in jobs):
            complete(one.state, rule, one.param, group, describe(group, one.index))
        states = [job.shard.state for job in jobs]
        stacked = {
            name: state_as_stack(gather([own[name] for own in states]), shape, batch_dims)
            for name in states[0]
            if name not in BESIDE
        }
        narrow = narrow_names(rule, first.param, group)
        stacked.update({name: stacked[name].to(grads.dtype) for name in narrow})
        hypers = first.hypers
        if isinstance(hypers.get("step"), Tensor):  # one for each matrix of this rank's part
            hypers = {**hypers, "step": first.state["step"].to(hypers["step"].dtype).reshape(1, 1, 1)}
        if "slots" in hypers:
            hypers = {**hypers, "slots": sum((job.shard.hypers["slots"] for job in jobs), ())}
        update = rule.update(self._stacked(grads), stacked, hypers)
        copied = stacked if len(states) > 1 else {name: stacked[name] for name in narrow}
        scatter(copied, states, stochastic=group.get("rounding") == "stochastic")
        if update is None:
            return []
        return [[part.reshape(grads.shape)] for part in (update.direction, update.momentum)[: self.answers]]

    def conclude(self, answers: Sequence[Sequence[Tensor]]) -> Iterator[Direction]:
        """Return S and M."""
        found = [answer[0] for answer in answers]
        yield self.shard, found[0] if found else None, found[1] if len(found) > 1 else None


def job(shard: Shard, owner: int) -> Job:
    """Return the job of a shard by the kind of its rule."""
    return (OracleJob if kind(shard.rule) == "oracle" else WholeJob)(shard, owner)
