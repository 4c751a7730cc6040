"""`steepest race`."""

from __future__ import annotations

import math
import re
import shlex
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from steepest.cli.reporting import SUBFOLDER, conclude
from steepest.cli.terminal import UsageError, console
from steepest.race.builtin import BUILTIN, DEFAULT_TASKS
from steepest.race.contenders import DEFAULTS, parse_contenders
from steepest.race.engine import Engine
from steepest.race.executors.choice import KINDS, check_executor, make_executor
from steepest.race.literals import split_items
from steepest.race.live import print_plan, progress
from steepest.race.records import RaceError, RecordStore, read_records
from steepest.race.report import Origin
from steepest.race.runner import Race, Settings, plan, run_race, write_manifest
from steepest.race.search import Grid
from steepest.race.task_text import load_tasks

INTERRUPTED = 130

Out = Annotated[Path, typer.Option(help="Folder of the records and the report.")]


def race(
    context: typer.Context,
    tasks: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TASKS",
            help=f"{', '.join(BUILTIN)}, or module:object. Default: {' and '.join(DEFAULT_TASKS)}.",
        ),
    ] = None,
    optimizers: Annotated[
        str,
        typer.Option(
            help="Comma-separated names or module:Class of any torch optimizer, each with fixed arguments if "
            "wanted, as in 'SGD(nesterov=True)'. 'all' stands for every method of the library, 'default' for "
            f"{', '.join(DEFAULTS)}. AdamW always races."
        ),
    ] = "default",
    lr_grid: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated learning rates to try first, for all. Default: 5 half a decade apart, "
            "around a start of each optimizer's own. A grid whose best rate lies on its edge is continued "
            "(a single rate is not)."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of one run. Default: the task's.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Paired seeds of the final runs.")] = 3,
    time_budget: Annotated[
        str | None,
        typer.Option(help="Start no run after this time (90, 90s, 5m, 1h); run again to go on."),
    ] = None,
    out: Out = Path("race-results"),
    executor: Annotated[
        str,
        typer.Option(
            metavar="|".join(KINDS), help="Where runs are done: processes of this machine, or a Ray cluster."
        ),
    ] = KINDS[0],
    address: Annotated[
        str | None,
        typer.Option(help="Of the Ray cluster: auto (the default), HOST:6379, or ray://HOST:10001."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at once. Default: as many as the cores, GPUs or nodes hold."),
    ] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Print what would run and what it would cost; run nothing.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run again what is recorded as failed.")
    ] = False,
) -> None:
    """Search each optimizer's learning rate, compare the best on paired seeds, write a report.

    The best rate is the one with the lowest validation loss at the end of a run on a seed of its own. Muon,
    MuAdam and other optimizers of matrices leave vectors, embeddings and output heads to an auxiliary AdamW
    at the best rate that AdamW had on the task.

    Results are kept run by run in the output folder: the same call goes on where it stopped, and adding an
    optimizer runs only what is new.
    """
    try:
        settings = Settings(
            tasks=load_tasks(DEFAULT_TASKS if tasks is None else _words(tasks)),
            contenders=parse_contenders(optimizers),
            seeds=seeds,
            steps=steps,
            rates=None if lr_grid is None else Grid.explicit(_rates(lr_grid)).points,
        )
        check_executor(executor, address)
        budget = None if time_budget is None else _seconds(time_budget)
    except RaceError as error:
        raise UsageError(str(error)) from None
    work = partial(make_executor, executor, Engine(), out / "workers.log", address=address, workers=workers)
    command = shlex.join(["steepest", *context.obj])
    screen = console()
    if plan_only:
        records = {r.key: r for r in read_records(out) if not (retry_failed and r.status == "failed")}
        with closing(work()) as place:
            print_plan(screen, plan(Race(settings, records)), place.slots, budget)
        return
    with RecordStore(out) as store:
        if retry_failed:
            store.forget(lambda record: record.status == "failed")
        contest = Race(settings, store.records)
        deadline = math.inf if budget is None else time.monotonic() + budget
        place = work()
        try:
            with progress(screen, contest.lanes()) as display:
                complete = run_race(contest, store, place, display, deadline)
        except KeyboardInterrupt:
            print("\nsteepest: stopped; what is done is recorded, the same call goes on", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        finally:
            place.close()
            write_manifest(out, contest, command)
        records = contest.relevant()
        origins = [Origin(command, frozenset(record.key for record in records))]
        worked = conclude(screen, records, out / SUBFOLDER, origins, out)
        for lane in contest.lanes():
            if lane.note:
                print(f"Note: {lane.task.name}, {lane.contender.name}: {lane.note}")
        if not complete:
            print("The time budget is used up; the same call goes on.")
    if not worked:
        raise typer.Exit(1)


def _words(items: list[str]) -> list[str]:
    words = [word for item in items for word in split_items(item)]
    if not words:
        raise RaceError(f"TASKS is empty; choose from {', '.join(BUILTIN)}, or give module:object")
    return words


def _rates(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise RaceError(f"--lr-grid must be comma-separated numbers, got {text!r}") from None


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if match is None:
        raise RaceError(f"--time-budget must be a number of seconds, or like 90s, 5m, 1h; got {text!r}")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
