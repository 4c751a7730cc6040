"""A race: who runs what, in which order, until nothing is left to do.

What every optimizer is to run on a task says its protocol, `steepest.race.fair` or
`steepest.race.published`. AdamW, the reference, is searched first, because hybrids use its best rate of the
task for their auxiliary AdamW.

What is to be done follows from the records alone, so a race that was stopped goes on where it was, and a
new optimizer adds its own runs and no other.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Protocol

from steepest.race.contenders import REFERENCE, Contender
from steepest.race.executors.base import Executor
from steepest.race.fair import fair_lane
from steepest.race.lane import Lane
from steepest.race.published import paper_lane
from steepest.race.records import RaceError, RecordStore, RunRecord
from steepest.race.settings import Settings
from steepest.race.spec import RunSpec
from steepest.race.task import one_line


class Listener(Protocol):
    """Who is told how a race goes."""

    def started(self, spec: RunSpec) -> None:
        """A run was handed out."""
        ...

    def finished(self, record: RunRecord, lanes: list[Lane]) -> None:
        """A run ended and is recorded."""
        ...


class Race:
    """A race over the records of a store; see the module."""

    def __init__(self, settings: Settings, records: dict[str, RunRecord]) -> None:
        self.settings = settings
        self.records = records
        self._known: dict[tuple[str, str], tuple[float | None, Lane]] = {}

    def lanes(self) -> list[Lane]:
        """Return what is wanted, as far as the records tell, task by task."""
        found: list[Lane] = []
        for text, task in self.settings.tasks.items():
            aux_lr: float | None = None
            for contender in self.settings.contenders_of(task):
                lane = self._lane(text, contender, aux_lr)
                found.append(lane)
                if contender.name == REFERENCE and lane.searched:
                    # If no rate of the reference worked, hybrids still need one: where its search started.
                    aux_lr = lane.best or contender.start_lr
        return found

    def _lane(self, text: str, contender: Contender, aux_lr: float | None) -> Lane:
        """Return a lane, made anew only if one of its runs has been recorded since."""
        before = self._known.get((text, contender.name))
        if before is not None and before[0] == aux_lr:
            lane = before[1]
            if sum(spec.key in self.records for spec in lane.specs) == lane.finished:
                return lane
        make = paper_lane if self.settings.protocol == "paper" else fair_lane
        lane = make(self.settings, text, contender, aux_lr, self.records)
        self._known[text, contender.name] = aux_lr, lane
        return lane

    def relevant(self) -> list[RunRecord]:
        """Return the records that belong to this race, in the order of its protocol."""
        wanted = [spec.key for lane in self.lanes() for spec in lane.specs]
        return [self.records[key] for key in wanted if key in self.records]

    def require_data(self) -> None:
        """Load the data of every task that has runs to do: what is missing is told once, at the start.

        It also leaves downloads and decoded files for the workers to find.

        Raises:
            RaceError: data cannot be loaded; the message names the task.
        """
        for task in {
            lane.task.name: lane.task for lane in self.lanes() if lane.finished < lane.expected
        }.values():
            try:
                task.data()
            except Exception as error:
                what = str(error) if isinstance(error, RaceError) else f"{type(error).__name__}: {error}"
                raise RaceError(one_line(f"task {task.name}: {what}")) from None

    def open_runs(self) -> list[RunSpec]:
        """Return the runs that can be done now, most urgent first.

        The reference's search first (others wait for it), then final runs (so that a race cut short has
        whole results), then the other searches.
        """
        specs = {s.key: s for lane in self.lanes() for s in lane.specs if s.key not in self.records}
        return sorted(
            specs.values(), key=lambda s: (s.phase != "sweep" or s.name != REFERENCE, s.phase != "final")
        )


def run_race(
    race: Race, store: RecordStore, executor: Executor, listener: Listener, deadline: float = math.inf
) -> bool:
    """Do what is open until nothing is; return whether the race is complete.

    Args:
        race: over ``store.records``.
        store: takes every record as it comes.
        executor: does the runs.
        listener: is told about each.
        deadline: in the time of `time.monotonic`; from then on no run is started, and those under way are
            awaited.
    """
    flying: set[str] = set()
    while True:
        ready = [spec for spec in race.open_runs() if spec.key not in flying]
        for spec in ready:
            if (same := store.records.get(spec.same_as)) is not None:
                store.append(replace(same, key=spec.key, phase=spec.phase))
                listener.finished(store.records[spec.key], race.lanes())
        ready = [spec for spec in ready if spec.key not in store.records]
        late = time.monotonic() >= deadline
        if not flying and (late or not ready):
            return not ready
        while ready and not late and len(flying) < executor.slots:
            spec = ready.pop(0)
            executor.submit(spec)
            flying.add(spec.key)
            listener.started(spec)
        record = executor.next_record()
        store.append(record)
        flying.discard(record.key)
        listener.finished(record, race.lanes())
