"""One optimizer on one task: the runs that are wanted, as far as the records tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from steepest.race.contenders import Contender
from steepest.race.records import RunRecord
from steepest.race.search import Grid, Search, search
from steepest.race.spec import RunSpec
from steepest.race.task import Task

Records = Mapping[str, RunRecord]


@dataclass
class Lane:
    """One optimizer on one task, as far as it has come.

    `specs` are the runs known to be wanted, `finished` how many of them have a record; `expected` counts
    also those that cannot be told yet. `best` is the best rate so far, `searched` says that it is final.
    """

    task: Task
    contender: Contender
    steps: int
    specs: list[RunSpec]
    expected: int
    finished: int = 0
    best: float | None = None
    searched: bool = False
    note: str = ""


def follow_search(
    grid: Grid, spec: Callable[[float], RunSpec], records: Records
) -> tuple[list[RunSpec], Search, dict[float, float]]:
    """Follow a learning rate search through the records.

    Returns:
        The runs it wants so far, where it stands, and the losses it has.
    """
    losses: dict[float, float] = {}
    while True:
        state = search(grid, losses)
        wanted = {rate: spec(rate) for rate in state.rates}
        known = {rate: records[s.key] for rate, s in wanted.items() if s.key in records}
        losses = {rate: record.final_loss for rate, record in known.items()}
        specs = list(wanted.values())
        if known and len(known) == len(wanted) and all(r.status == "failed" for r in known.values()):
            return specs, Search(state.rates, done=True), losses  # another rate would not help
        if state.done or len(known) < len(wanted):
            return specs, state, losses


def best_rate(losses: Mapping[float, float]) -> float | None:
    """Return the rate with the lowest finite loss, of equals the smallest; None if there is none."""
    finite = [rate for rate, loss in losses.items() if math.isfinite(loss)]
    return min(finite, key=lambda rate: (losses[rate], rate), default=None)
