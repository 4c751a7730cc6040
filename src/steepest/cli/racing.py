"""`steepest race`."""

from __future__ import annotations

import math
import shlex
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import typer

from steepest.cli import race_options as given
from steepest.cli.reporting import SUBFOLDER, conclude
from steepest.cli.terminal import UsageError, console
from steepest.race.builtin import DEFAULT_TASKS
from steepest.race.contenders import Contender, parse_contenders
from steepest.race.engine import Engine
from steepest.race.executors.choice import KINDS, check_executor, make_executor
from steepest.race.literals import split_items
from steepest.race.live import print_plan, progress
from steepest.race.manifest import write_manifest
from steepest.race.planning import plan
from steepest.race.records import RaceError, RecordStore, read_records
from steepest.race.report import Origin
from steepest.race.runner import Race, run_race
from steepest.race.search import Grid
from steepest.race.settings import PROTOCOLS, Settings
from steepest.race.task_text import load_tasks

INTERRUPTED = 130


def race(
    context: typer.Context,
    tasks: given.Tasks = None,
    optimizers: given.Optimizers = "default",
    preset: given.Preset = None,
    protocol: given.Protocol = PROTOCOLS[0],
    seeds: given.Seeds = None,
    steps: given.Steps = None,
    data: given.Data = None,
    lr_grid: given.LrGrid = None,
    tune: given.Tune = None,
    trials: given.Trials = 0,
    early_stop: given.EarlyStop = True,
    device: given.Device = "cpu",
    compile: given.Compile = False,
    autocast: given.Autocast = None,
    accumulate: given.Accumulate = 1,
    clip: given.Clip = None,
    schedule: given.Schedule = None,
    warmup: given.WarmUp = None,
    threads: given.Threads = 1,
    processes: given.Processes = 1,
    out: given.Out = Path("race-results"),
    executor: given.Executor = KINDS[0],
    address: given.Address = None,
    workers: given.Workers = None,
    time_budget: given.TimeBudget = None,
    plan_only: given.PlanOnly = False,
    retry_failed: given.RetryFailed = False,
) -> None:
    """Search each optimizer's learning rate, compare the best on paired seeds, write a report.

    The best rate is the one with the lowest validation loss at the end of a run on a seed of its own. Muon,
    MuAdam and other optimizers of matrices leave vectors, embeddings and output heads to an auxiliary AdamW
    at the best rate that AdamW had on the task.

    Results are kept run by run in the output folder: the same call goes on where it stopped, and adding an
    optimizer runs only what is new.

    \b
    steepest race --plan
    steepest race saddle gpt --data FOLDER
    steepest race gpt@full --device cuda --autocast bfloat16
    steepest race saddle --protocol paper
    steepest race my_file:my_task --optimizers 'AdamW,Muon,my_file:MyOptimizer'
    """
    try:
        given.use_data(data)
        engine = Engine(
            device=device,
            compile=compile,
            autocast=autocast,
            accumulate=accumulate,
            clip=clip,
            schedule=schedule,
            warmup=warmup,
            threads=threads,
            processes=processes,
        )
        if executor == "local":
            engine.require_device()
        if protocol == "paper" and seeds is not None:
            raise RaceError("--protocol paper has the paper's seeds: leave out --seeds")
        settings = Settings(
            tasks=load_tasks(DEFAULT_TASKS if tasks is None else given.words(tasks), preset),
            contenders=_contenders(optimizers, protocol),
            seeds=3 if seeds is None else seeds,
            steps=steps,
            rates=None if lr_grid is None else Grid.explicit(given.rates(lr_grid)).points,
            protocol=protocol,
            engine=engine,
            tuned=tuple(split_items(tune or "")),
            trials=trials,
            stops_hopeless=early_stop,
        )
        check_executor(executor, address)
        budget = None if time_budget is None else given.seconds(time_budget)
    except RaceError as error:
        raise UsageError(str(error)) from None
    work = partial(make_executor, executor, engine, out / "workers.log", address=address, workers=workers)
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
        if executor == "local":
            contest.require_data()
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


def _contenders(text: str, protocol: str) -> list[Contender]:
    """Return who was asked for; of a paper's race nobody stands for all whom it ran."""
    if protocol == "paper" and split_items(text) == ["default"]:
        return []
    return parse_contenders(text)
