"""What was asked of a race."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from steepest.race.contenders import REFERENCE, Contender, parse_contender
from steepest.race.engine import Engine
from steepest.race.literals import write_call
from steepest.race.paper import Paper
from steepest.race.records import RaceError
from steepest.race.search import Grid
from steepest.race.task import Task
from steepest.race.tuning import check_tuning
from steepest.spelling import suggest

PROTOCOLS = ("fair", "paper")


@dataclass(frozen=True)
class Settings:
    """What was asked for.

    Args:
        tasks: by the text given for each.
        contenders: of the protocol "fair"; the first is AdamW. Of the protocol "paper", which of the paper's
            optimizers to run; none stands for all.
        seeds: paired seeds of the final runs; the protocol "paper" has the paper's.
        steps: of one run, instead of the task's or the paper's.
        rates: the first learning rates to try for everyone, instead of a grid around each one's start.
        protocol: "fair" or "paper".
        engine: how runs are computed.
        tuned: arguments that are searched after the learning rate, see `steepest.race.tuning`.
        trials: runs of that search for each optimizer.
        stops_hopeless: whether the runs of a search may be stopped, see `steepest.race.hopeless`.

    Raises:
        RaceError: a setting is not known, or a task or an optimizer has no paper to follow.
    """

    tasks: dict[str, Task]
    contenders: list[Contender]
    seeds: int = 3
    steps: int | None = None
    rates: tuple[float, ...] | None = None
    protocol: str = "fair"
    engine: Engine = field(default_factory=Engine)
    tuned: tuple[str, ...] = ()
    trials: int = 0
    stops_hopeless: bool = True

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            hint = suggest(self.protocol, list(PROTOCOLS))
            raise RaceError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {self.protocol!r}{hint}")
        if self.protocol == "paper":
            self._check_paper()
        check_tuning(self.tuned, self.trials, self.contenders)

    def _check_paper(self) -> None:
        for asked, name in (("tune", self.tuned), ("lr-grid", self.rates)):
            if name:
                raise RaceError(f"--protocol paper tunes what the paper tuned: leave out --{asked}")
        if self.engine.schedule is not None or self.engine.warmup is not None:
            raise RaceError("--protocol paper has the paper's schedule: leave out --schedule and --warmup")
        for task in self.tasks.values():
            known = _paper_of(task).optimizers
            for contender in self.contenders:
                if contender.name not in (*known, REFERENCE):
                    hint = suggest(contender.name, list(known))
                    raise RaceError(
                        f"--protocol paper: {task.name}'s paper did not run {contender.name!r}; it ran "
                        f"{', '.join(known)}{hint}"
                    )

    def contenders_of(self, task: Task) -> list[Contender]:
        """Return who races on a task, AdamW first."""
        if self.protocol == "fair":
            return [replace(c, start_lr=c.start_lr * task.lr_scale) for c in self.contenders]
        paper = _paper_of(task)
        chosen = {contender.name for contender in self.contenders} or set(paper.optimizers)
        names = [name for name in paper.optimizers if name in chosen]
        names.sort(key=lambda name: name != REFERENCE)
        return [_as_published(name, paper) for name in names]

    def grid(self, contender: Contender) -> Grid:
        """Return the first learning rates to try for a contender."""
        return Grid.around(contender.start_lr) if self.rates is None else Grid.explicit(self.rates)

    def steps_of(self, task: Task) -> int:
        """Return the steps of one run."""
        if self.steps is not None:
            return self.steps
        return _paper_of(task).steps if self.protocol == "paper" else task.steps


def _paper_of(task: Task) -> Paper:
    if task.paper is None:
        raise RaceError(
            f"--protocol paper: no paper's settings are known for the task {task.name!r}; use --protocol fair"
        )
    return task.paper


def _as_published(name: str, paper: Paper) -> Contender:
    contender = parse_contender(write_call(name, paper.kwargs.get(name, {})))
    return replace(contender, name=name)
