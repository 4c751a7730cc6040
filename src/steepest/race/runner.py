"""The protocol of a race: who runs what, in which order, until nothing is left to do.

For every task: search each optimizer's learning rate on the tuning seed (`steepest.race.search`), judged by
the final validation loss, then run the best rate on further seeds. The seeds are paired: the same seed means
the same initialisation and the same batches for every optimizer. AdamW, the reference, is searched first,
because hybrids use its best rate of the task for their auxiliary AdamW.

What is to be done follows from the records alone, so a race that was stopped goes on where it was, and a
new optimizer adds its own runs and no other.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from steepest.race.contenders import Contender
from steepest.race.executors.base import Executor
from steepest.race.records import RaceError, RecordStore, RunRecord, read_records
from steepest.race.search import Grid, Search, search
from steepest.race.spec import RunSpec, make_spec
from steepest.race.task import Task

TUNING_SEED = 0
MANIFEST = "race.json"


@dataclass(frozen=True)
class Settings:
    """What was asked for; `tasks` is keyed by the text given for each, the first contender is AdamW."""

    tasks: dict[str, Task]
    contenders: list[Contender]
    seeds: int = 3
    steps: int | None = None
    rates: tuple[float, ...] | None = None

    def grid(self, contender: Contender) -> Grid:
        """Return the first learning rates to try for a contender."""
        return Grid.around(contender.start_lr) if self.rates is None else Grid.explicit(self.rates)

    def steps_of(self, task: Task) -> int:
        """Return the steps of one run."""
        return task.steps if self.steps is None else self.steps


@dataclass
class Lane:
    """One optimizer on one task, as far as it has come.

    `specs` are the runs known to be wanted, `finished` how many of them have a record; `expected` counts
    also those that cannot be told yet. `best` is the best rate so far, `searched` says that it is final.
    """

    task: Task
    contender: Contender
    specs: list[RunSpec]
    expected: int
    finished: int = 0
    best: float | None = None
    searched: bool = False
    note: str = ""


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

    def lanes(self) -> list[Lane]:
        """Return what is wanted, as far as the records tell, task by task."""
        found: list[Lane] = []
        for name in self.settings.tasks:
            reference, *others = self.settings.contenders
            lane = self._lane(name, reference, None)
            # If no rate of the reference worked, hybrids still need one: where its search started.
            aux_lr = (lane.best or reference.start_lr) if lane.searched else None
            found += [lane, *(self._lane(name, contender, aux_lr) for contender in others)]
        return found

    def _lane(self, name: str, contender: Contender, aux_lr: float | None) -> Lane:
        settings, task = self.settings, self.settings.tasks[name]
        grid, steps = settings.grid(contender), settings.steps_of(task)
        hybrid = contender.is_hybrid()
        if hybrid and aux_lr is None:
            note = f"waits for {settings.contenders[0].name}"
            return Lane(task, contender, [], len(grid.points) + settings.seeds, note=note)

        def spec(lr: float, seed: int, phase: str) -> RunSpec:
            aux = aux_lr if hybrid else None
            return make_spec(name, task, contender, lr=lr, aux_lr=aux, seed=seed, phase=phase, steps=steps)

        rates, state, losses = self._search(grid, lambda rate: spec(rate, TUNING_SEED, "sweep"))
        specs = list(rates.values())
        finite = [rate for rate, loss in losses.items() if math.isfinite(loss)]
        best = min(finite, key=lambda rate: (losses[rate], rate), default=None)
        note = (
            "no rate worked" if best is None else "best rate on the edge of its grid" if state.on_edge else ""
        )
        if state.done and best is not None:
            specs += [spec(best, TUNING_SEED + 1 + i, "final") for i in range(settings.seeds)]
        return Lane(
            task,
            contender,
            specs,
            expected=len(specs) + (0 if state.done else settings.seeds),
            finished=sum(s.key in self.records for s in specs),
            best=best,
            searched=state.done,
            note=note if state.done else "",
        )

    def _search(
        self, grid: Grid, spec: Callable[[float], RunSpec]
    ) -> tuple[dict[float, RunSpec], Search, dict[float, float]]:
        """Follow a search through the records; return the runs it wants, where it stands, and its losses."""
        losses: dict[float, float] = {}
        while True:
            state = search(grid, losses)
            wanted = {rate: spec(rate) for rate in state.rates}
            known = {rate: self.records[s.key] for rate, s in wanted.items() if s.key in self.records}
            losses = {rate: record.final_loss for rate, record in known.items()}
            if known and len(known) == len(wanted) and all(r.status == "failed" for r in known.values()):
                return wanted, Search(state.rates, done=True), losses  # another rate would not help
            if state.done or len(known) < len(wanted):
                return wanted, state, losses

    def relevant(self) -> list[RunRecord]:
        """Return the records that belong to this race, in the order of its protocol."""
        wanted = [spec.key for lane in self.lanes() for spec in lane.specs]
        return [self.records[key] for key in wanted if key in self.records]

    def open_runs(self) -> list[RunSpec]:
        """Return the runs that can be done now, most urgent first.

        The reference's search first (others wait for it), then final runs (so that a race cut short has
        whole results), then the other searches.
        """
        lanes = self.lanes()
        reference = self.settings.contenders[0].name
        specs = [s for lane in lanes for s in lane.specs if s.key not in self.records]
        return sorted(specs, key=lambda s: (s.phase != "sweep" or s.name != reference, s.phase != "final"))


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


@dataclass(frozen=True)
class Cost:
    """What a lane would still cost: runs, steps and seconds of one core."""

    lane: Lane
    runs: int
    steps: int
    seconds: float
    measured: bool


def plan(race: Race) -> list[Cost]:
    """Estimate what is left, from the records of the same task and optimizer where there are any.

    Extensions of a grid cannot be foreseen and are not counted.
    """
    costs: list[Cost] = []
    for lane in race.lanes():
        runs, steps = lane.expected - lane.finished, race.settings.steps_of(lane.task)
        seen = [
            r.seconds / r.train_curve[-1][0]
            for r in race.records.values()
            if r.task == lane.task.name and r.target == lane.contender.target and r.train_curve and r.seconds
        ]
        per_step = sum(seen) / len(seen) if seen else lane.task.step_ms / 1e3
        costs.append(Cost(lane, runs, runs * steps, runs * steps * per_step, bool(seen)))
    return costs


def write_manifest(folder: Path, race: Race, command: str | None = None) -> None:
    """Note which records make up the latest race of a folder, and the command that asked for it."""
    settings = race.settings
    manifest: dict[str, Any] = {
        "command": command,
        "tasks": list(settings.tasks),
        "optimizers": [contender.name for contender in settings.contenders],
        "seeds": settings.seeds,
        "steps": settings.steps,
        "lr_grid": settings.rates,
        "keys": [record.key for record in race.relevant()],
    }
    unfinished = folder / f"{MANIFEST}.tmp"
    try:
        unfinished.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        os.replace(unfinished, folder / MANIFEST)
    except OSError as error:
        raise RaceError(f"cannot write {folder / MANIFEST}: {error.strerror}") from None


def latest_race(folder: Path) -> tuple[list[RunRecord], str | None]:
    """Return the records of the latest race of a folder (all there are if it is not told) and its command.

    Raises:
        RaceError: there are none.
    """
    records = read_records(folder)
    if not records:
        raise RaceError(f"no records in {folder}; `steepest race --out {folder}` makes some")
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        keys, command = manifest["keys"], manifest["command"]
    except (OSError, ValueError, KeyError):
        return records, None
    by_key = {record.key: record for record in records}
    return [by_key[key] for key in keys if key in by_key] or records, command
