"""The subcommands of `steepest`, and how their errors become one line."""

from __future__ import annotations

import math
import os
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from steepest._resolve import TargetError
from steepest._version import __version__
from steepest.race.contenders import DEFAULTS, parse_contenders
from steepest.race.executor import LocalWorkers
from steepest.race.live import PLAIN_WIDTH, print_plan, print_results, progress
from steepest.race.records import RaceError, RecordStore, RunRecord, read_records
from steepest.race.report import write_report
from steepest.race.runner import Race, Settings, latest_race, plan, run_race, write_manifest
from steepest.race.search import Grid
from steepest.race.statistics import Summary, summarize
from steepest.race.task import BUILTIN, load_tasks, one_line

REPORT = "report.html"
USAGE = 2
INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Race optimizers fairly on real tasks, look methods up, and check optimizer classes.",
)

Out = Annotated[Path, typer.Option(help="Folder of the records and the report.")]


class UsageError(Exception):
    """A wrong call; the message is one line."""


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code; whatever is wrong is one line on standard error."""
    command = typer.main.get_command(app)
    try:
        code = command.main(args=arguments, prog_name="steepest", standalone_mode=False, obj=arguments)
        return code if isinstance(code, int) else 0
    except UsageError as error:
        return _complain(str(error), USAGE)
    except (RaceError, TargetError) as error:
        return _complain(str(error), 1)
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _complain("stopped", INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone: nothing left to say
        return 1
    except Exception as error:
        describe = getattr(error, "format_message", None)  # typer's own complaints about the call
        if describe is not None:
            return _complain(describe(), USAGE)
        if os.environ.get("STEEPEST_TRACEBACK"):
            raise
        return _complain(f"{type(error).__name__}: {error} (STEEPEST_TRACEBACK=1 shows where)", 1)


def _complain(message: str, code: int) -> int:
    if message:
        print(f"steepest: {one_line(message)}", file=sys.stderr)
    return code


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"steepest {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def race(
    context: typer.Context,
    tasks: Annotated[
        list[str] | None,
        typer.Argument(metavar="TASKS", help=f"{', '.join(BUILTIN)}, or module:object. Default: both."),
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
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes of one thread each. Default: one per core.")
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
            tasks=load_tasks(_words(tasks) or BUILTIN),
            contenders=parse_contenders(optimizers),
            seeds=seeds,
            steps=steps,
            rates=None if lr_grid is None else Grid.explicit(_rates(lr_grid)).points,
        )
        budget = None if time_budget is None else _seconds(time_budget)
    except RaceError as error:
        raise UsageError(str(error)) from None
    workers = workers or _cores()
    command = shlex.join(["steepest", *context.obj])
    console = _console()
    if plan_only:
        records = {r.key: r for r in read_records(out) if not (retry_failed and r.status == "failed")}
        print_plan(console, plan(Race(settings, records)), workers, budget)
        return
    with RecordStore(out) as store:
        if retry_failed:
            store.forget(lambda record: record.status == "failed")
        contest = Race(settings, store.records)
        deadline = math.inf if budget is None else time.monotonic() + budget
        executor = LocalWorkers(workers, out / "workers.log")
        try:
            with progress(console, contest.lanes()) as display:
                complete = run_race(contest, store, executor, display, deadline)
        except KeyboardInterrupt:
            print("\nsteepest: stopped; what is done is recorded, the same call goes on", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        finally:
            executor.close()
            write_manifest(out, contest, command)
        worked = _conclude(console, contest.relevant(), out, command)
        for lane in contest.lanes():
            if lane.note:
                print(f"Note: {lane.task.name}, {lane.contender.name}: {lane.note}")
        if not complete:
            print("The time budget is used up; the same call goes on.")
    if not worked:
        raise typer.Exit(1)


@app.command()
def report(
    out: Annotated[Path, typer.Argument(help="Folder of a race.")] = Path("race-results"),
) -> None:
    """Print the table of a folder's latest race and write its report again from the records."""
    records, command = latest_race(out)
    _conclude(_console(), records, out, command)


@app.command("list")
def list_() -> None:
    """List the optimizers of the library."""
    from steepest.race.catalogue import print_list

    print_list(_console())


@app.command()
def show(name: Annotated[str, typer.Argument(help="An optimizer of the library.")]) -> None:
    """Explain an optimizer: formula, four choices, learning rate, cost, source, when not to use it."""
    from steepest.race.catalogue import print_method

    print_method(_console(), name)


@app.command()
def check(
    target: Annotated[str, typer.Argument(metavar="module:Class", help="An optimizer class, or its name.")],
    strict: Annotated[bool, typer.Option("--strict", help="Count the strict checks too.")] = False,
    kwargs: Annotated[str | None, typer.Option(help="Constructor arguments as a JSON object.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Names or groups of checks to run.")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="Names or groups of checks to leave out.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    device: Annotated[str, typer.Option(help="Where the parameters live.")] = "cpu",
) -> None:
    """Check an optimizer class against PyTorch's contract, clause by clause."""
    from steepest.checks import main_check

    raise typer.Exit(
        main_check(
            target,
            strict=strict,
            kwargs=kwargs,
            only=only,
            skip=skip,
            json=json,
            device=device,
            err=lambda line: print(line, file=sys.stderr),
        )
    )


@app.command()
def invariance(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAMES]...", help="Optimizers, or module:Class. Default: the library's."),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Steps of each trajectory.")] = 30,
    model: Annotated[
        list[str] | None, typer.Option(help="linear, mlp or pixels. Default: the first two.")
    ] = None,
    strength: Annotated[float, typer.Option(help="How far the new coordinates are from the old.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of weights, batches and coordinates.")] = 0,
    kwargs: Annotated[str | None, typer.Option(help="Constructor arguments as a JSON object.")] = None,
    out: Annotated[list[Path] | None, typer.Option(help="Picture (.png) or table (.md) to write.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print all results as JSON.")] = False,
) -> None:
    """Measure to which changes of coordinates optimizers are invariant, beside what theory predicts."""
    from steepest.checks import main_invariance

    raise typer.Exit(
        main_invariance(
            names, steps=steps, models=model, strength=strength, seed=seed, kwargs=kwargs, out=out, json=json
        )
    )


def _conclude(console: Console, records: list[RunRecord], out: Path, command: str | None) -> bool:
    """Print the table and the failures, write the report; return whether any run worked."""
    if not records:
        print("Nothing has been run.")
        return False
    summary: Summary = summarize(records)
    print_results(console, summary)
    failed = [record for record in records if record.status == "failed"]
    if failed:
        print(f"\n{len(failed)} of {len(records)} runs failed (tracebacks in {out / 'workers.log'}):")
        for text in dict.fromkeys(f"  {r.task} {r.optimizer}: {r.error}" for r in failed):
            print(text)
    try:
        path = write_report(summary, out / REPORT, records=records, command=command)
    except OSError as error:
        raise RaceError(f"cannot write {out / REPORT}: {error.strerror}") from None
    print(f"\nReport: {path}")
    return any(record.status == "ok" for record in records)


def _words(items: list[str] | None) -> list[str]:
    return [word for item in items or () for word in item.split(",") if word]


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


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
