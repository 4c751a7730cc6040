"""Two races, or two optimizers of one race, side by side: what `steepest compare` prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from steepest.race.records import RaceError
from steepest.race.statistics.events import Event
from steepest.race.statistics.pairs import tested
from steepest.race.statistics.results import OptimizerSummary, PairResult, Summary, TaskSummary
from steepest.spelling import suggest


@dataclass(frozen=True)
class ComparisonRow:
    """Side A against side B on one task.

    ``pair`` holds difference A - B of the final validation losses, its p (before and after Holm over all
    rows) and the verdict. The ratios are A / B, or None where one side was not measured. ``note`` names what
    else differs, as in "steps 200 and 400".
    """

    task: str
    a: OptimizerSummary
    b: OptimizerSummary
    pair: PairResult
    note: str

    @property
    def step_ratio(self) -> float | None:
        """Median time of an optimizer step, A / B."""
        return _ratio(self.a.step_ms, self.b.step_ms)

    @property
    def state_ratio(self) -> float | None:
        """Bytes of optimizer state per parameter, A / B."""
        return _ratio(self.a.state_bytes_per_param, self.b.state_bytes_per_param)

    @property
    def memory_ratio(self) -> float | None:
        """Peak memory of a run, A / B."""
        return _ratio(self.a.peak_memory_bytes, self.b.peak_memory_bytes)


@dataclass(frozen=True)
class Comparison:
    """The rows of a comparison, and what only one side has."""

    rows: tuple[ComparisonRow, ...]
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()


def compare_optimizers(summary: Summary, a: str, b: str) -> Comparison:
    """Compare two optimizers of a race on every task where both ran.

    Raises:
        RaceError: an optimizer was not run, or they share no task, or they are the same.
    """
    names = list(dict.fromkeys(o.name for task in summary.tasks for o in task.optimizers))
    for name in (a, b):
        if name not in names:
            hint = suggest(name, names) or f"; there are {', '.join(names)}"
            raise RaceError(f"no runs of {name!r} in the folder{hint}")
    if a == b:
        raise RaceError(f"A and B are both {a!r}; give two optimizers")
    found = [(task, _named(task, a), _named(task, b)) for task in summary.tasks]
    both = [(task.name, x, y, "") for task, x, y in found if x and y]
    if not both:
        raise RaceError(f"{a!r} and {b!r} share no task in the folder")
    only_a = tuple(task.name for task, x, y in found if x and not y)
    only_b = tuple(task.name for task, x, y in found if y and not x)
    return Comparison(_rows(both, summary.alpha), only_a, only_b)


def compare_folders(a: Summary, b: Summary) -> Comparison:
    """Compare two races: each optimizer with itself, on every task that both have.

    Tasks match if name, preset and protocol do, and the engine too where a race has several.

    Raises:
        RaceError: the two have no optimizer on a task in common.
    """
    both: list[tuple[str, OptimizerSummary, OptimizerSummary, str]] = []
    matched: set[tuple[str, str]] = set()
    for task in a.tasks:
        other = _match(task, b)
        for x in task.optimizers:
            y = _named(other, x.name) if other else None
            if other and y:
                both.append((task.name, x, y, _differences(task, other)))
                matched |= {(task.name, x.name), (other.name, y.name)}
    left = _left(a, {(task, x.name) for task, x, _, _ in both})
    if not both:
        raise RaceError(
            f"nothing to compare: A has {', '.join(left) or 'no runs'}; B has "
            f"{', '.join(_left(b, set())) or 'no runs'}. To compare two optimizers of one race: --in FOLDER"
        )
    return Comparison(_rows(both, a.alpha), left, _left(b, matched))


def _rows(
    both: Sequence[tuple[str, OptimizerSummary, OptimizerSummary, str]], alpha: float
) -> tuple[ComparisonRow, ...]:
    sides = [(replace(x, name="A"), replace(y, name="B")) for _, x, y, _ in both]
    pairs = tested(sides, alpha)
    return tuple(
        ComparisonRow(task, x, y, replace(pair, a=x.name, b=y.name), note)
        for (task, x, y, note), pair in zip(both, pairs, strict=True)
    )


def _named(task: TaskSummary, name: str) -> OptimizerSummary | None:
    return next((o for o in task.optimizers if o.name == name), None)


def _match(task: TaskSummary, other: Summary) -> TaskSummary | None:
    def place(event: Event) -> tuple[str, str, str]:
        return event.task, event.preset, event.protocol

    same = [t for t in other.tasks if place(t.event) == place(task.event)]
    exact = [t for t in same if t.event == task.event]
    return exact[0] if exact else same[0] if len(same) == 1 else None


def _differences(a: TaskSummary, b: TaskSummary) -> str:
    known = a.event.options.keys() | b.event.options.keys()
    told = [("task version", a.version, b.version), ("steps", a.steps, b.steps)]
    told += [(name, a.event.options.get(name), b.event.options.get(name)) for name in sorted(known)]
    return ", ".join(f"{name} {x} and {y}" for name, x, y in told if x != y)


def _left(summary: Summary, matched: set[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(
        f"{o.name} on {task.name}"
        for task in summary.tasks
        for o in task.optimizers
        if (task.name, o.name) not in matched
    )


def _ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a is not None and b else None
