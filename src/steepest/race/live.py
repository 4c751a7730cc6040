"""Showing a race while it runs and what came out of it: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from steepest.race.lane import Lane
from steepest.race.planning import Cost
from steepest.race.records import RunRecord
from steepest.race.search import EXTENSIONS
from steepest.race.spec import RunSpec
from steepest.race.statistics import NO_DIFFERENCE, Summary, format_lr, format_number, table_rows

PLAIN_WIDTH = 120
NARROW = ("rank", "optimizer", "val loss", "best lr", "vs reference")
COLUMNS = ("rank", "optimizer", "val loss", "metric", "best lr", "to target", "vs reference", "step ms")


class PlainProgress:
    """One line per finished run."""

    def __init__(self, console: Console, lanes: list[Lane]) -> None:
        self._console = console
        _say_resumed(console, lanes)

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def started(self, spec: RunSpec) -> None:
        """Say nothing: the line comes with the result."""

    def finished(self, record: RunRecord, lanes: list[Lane]) -> None:
        """Print how far the race is and what the run gave."""
        done, total = _counts(lanes)
        line = f"[{done}/{total}] {record.task} {record.optimizer} lr {format_lr(record.lr)} {_what(record)}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class LiveProgress:
    """A table of all optimizers that fills while the race runs, with one bar for the whole."""

    def __init__(self, console: Console, lanes: list[Lane]) -> None:
        _say_resumed(console, lanes)
        self._lanes = lanes
        self._began = time.monotonic()
        self._done_before = _counts(lanes)[0]
        self._last: dict[tuple[str, str], RunRecord] = {}
        self._running: dict[str, RunSpec] = {}
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4)

    def __enter__(self) -> LiveProgress:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def started(self, spec: RunSpec) -> None:
        """Show the run as under way."""
        self._running[spec.key] = spec

    def finished(self, record: RunRecord, lanes: list[Lane]) -> None:
        """Show the run's result in its row."""
        self._running.pop(record.key, None)
        self._last[record.task, record.optimizer] = record
        self._lanes = lanes

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for title in ("task", "optimizer", "runs", "best lr", "last run", ""):
            table.add_column(title, justify="right" if title in ("runs", "best lr") else "left", no_wrap=True)
        busy = {(spec.task, spec.name) for spec in self._running.values()}
        for lane in self._lanes:
            name = (lane.task.name, lane.contender.name)
            last = self._last.get(name)
            table.add_row(
                lane.task.name,
                escape(lane.contender.name),
                f"{lane.finished}/{lane.expected}",
                format_lr(lane.best),
                escape(f"lr {format_lr(last.lr)} {_what(last)}") if last else "",
                "running" if name in busy else escape(lane.note),
            )
        done, total = _counts(self._lanes)
        spent = time.monotonic() - self._began
        new = done - self._done_before
        left = f", about {_duration(spent / new * (total - done))} left" if new and done < total else ""
        status = Text(f"  {done} of {total} runs, {_duration(spent)}{left}")
        return Group(table, ProgressBar(total=max(1, total), completed=done, width=60), status)


def progress(console: Console, lanes: list[Lane]) -> LiveProgress | PlainProgress:
    """Return the display that suits the console."""
    return LiveProgress(console, lanes) if console.is_terminal else PlainProgress(console, lanes)


def print_plan(console: Console, costs: list[Cost], workers: int, budget: float | None) -> None:
    """Print what would run and what it would cost."""
    table = Table(title="Runs to do", title_justify="left", box=None, pad_edge=False)
    for title in ("task", "optimizer", "learning rates", "runs left", "steps", "about"):
        table.add_column(title, justify="right" if title in ("runs left", "steps", "about") else "left")
    for cost in costs:
        rates = [format_lr(spec.lr) for spec in cost.lane.specs if spec.phase == "sweep"]
        table.add_row(
            cost.lane.task.name,
            escape(cost.lane.contender.name),
            " ".join(rates) or cost.lane.note,
            str(cost.runs),
            str(cost.steps),
            f"{_duration(cost.seconds)}{'' if cost.measured else ' *'}",
        )
    console.print(table)
    runs, seconds = sum(c.runs for c in costs), sum(c.seconds for c in costs)
    lines = [
        f"In all {runs} runs, about {_duration(seconds)} of one core, "
        f"{_duration(seconds / workers)} with {workers} worker{'s' if workers > 1 else ''}.",
    ]
    if not all(cost.measured for cost in costs):
        lines.append(
            "* by what the task says a step of AdamW costs; the others have been measured in this folder."
        )
    if all(spec.protocol == "fair" for cost in costs for spec in cost.lane.specs):
        lines.append(f"A search whose best rate lies on the edge of its grid adds up to {EXTENSIONS} runs.")
    if budget is not None and budget < seconds / workers:
        lines.append(f"The time budget of {_duration(budget)} would stop it before the end.")
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


def print_results(console: Console, summary: Summary) -> None:
    """Print a ranked table per task."""
    rows = table_rows(summary)
    columns = COLUMNS if console.width >= 100 else NARROW
    for task in summary.tasks:
        table = Table(pad_edge=False, box=None)
        for title in columns:
            shown = title.replace("reference", escape(summary.reference))
            table.add_column(
                shown,
                justify="right" if title in ("rank", "step ms", "best lr") else "left",
                overflow="fold",
                no_wrap=title == "optimizer" and console.width >= PLAIN_WIDTH,
            )
        for row in rows:
            if row["task"] == task.name:
                row["vs reference"] = row["vs reference"].replace(NO_DIFFERENCE, "not detectable")
                table.add_row(*(escape(row[title]) for title in columns))
        console.print(f"\n{task.name}: {task.steps} steps", markup=False, highlight=False, style="bold")
        console.print(table)


def _say_resumed(console: Console, lanes: list[Lane]) -> None:
    done, total = _counts(lanes)
    if done:
        console.print(f"{done} of {total} runs are already recorded.", highlight=False)


def _counts(lanes: list[Lane]) -> tuple[int, int]:
    return sum(lane.finished for lane in lanes), sum(lane.expected for lane in lanes)


def _what(record: RunRecord) -> str:
    kind = {"sweep": "sweep", "tune": "trial"}.get(record.phase, f"seed {record.seed}")
    if record.status != "ok" or not math.isfinite(record.final_loss):
        return f"{kind} {record.status}" + (f": {record.error}" if record.error else "")
    return f"{kind} loss {format_number(record.final_loss, 4)}, {record.seconds:.1f} s"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return (
        f"{round(seconds)} s"
        if seconds < 120
        else f"{minutes} min"
        if minutes < 120
        else f"{minutes / 60:.1f} h"
    )
