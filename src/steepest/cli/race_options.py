"""The options of `steepest race`, and what their texts mean."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from steepest.race.builtin import BUILTIN, DEFAULT_TASKS
from steepest.race.contenders import DEFAULTS
from steepest.race.engine import AUTOCAST
from steepest.race.executors.choice import KINDS
from steepest.race.literals import split_items
from steepest.race.records import RaceError
from steepest.race.schedules import SCHEDULES
from steepest.race.settings import PROTOCOLS
from steepest.race.task import PRESETS
from steepest.race.tuning import TUNABLE

Tasks = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="TASKS",
        help=f"{', '.join(BUILTIN)}, or module:object; each with a preset and options if wanted, as in "
        f"gpt@full or 'sst2(lora_rank=8)'. Default: {' and '.join(DEFAULT_TASKS)}.",
    ),
]
Optimizers = Annotated[
    str,
    typer.Option(
        help="Comma-separated names or module:Class of any torch optimizer, each with fixed arguments if "
        "wanted, as in 'SGD(nesterov=True)'. 'all' stands for every method of the library, 'default' for "
        f"{', '.join(DEFAULTS)}, or for those of the paper. AdamW always races.",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(PRESETS),
        help="Size of tasks that come in two and name none: cpu (minutes) or full (for a GPU).",
    ),
]
Protocol = Annotated[
    str,
    typer.Option(
        metavar="|".join(PROTOCOLS),
        help="fair: the same search for everyone. paper: steps, batch, seeds, schedule and learning rates of "
        "the paper that a task comes from, sweeping only what the paper swept.",
    ),
]
Seeds = Annotated[
    int | None,
    typer.Option(min=1, help="Paired seeds of the final runs. Default: 3, or the paper's."),
]
Steps = Annotated[
    int | None, typer.Option(min=1, help="Steps of one run. Default: the task's, or the paper's.")
]
Data = Annotated[
    Path | None,
    typer.Option(help="Folder with the tasks' files. Default: STEEPEST_DATA, then a cache of downloads."),
]
LrGrid = Annotated[
    str | None,
    typer.Option(
        help="Comma-separated learning rates to try first, for all. Default: 5 half a decade apart, "
        "around a start of each optimizer's own. A grid whose best rate lies on its edge is continued "
        "(a single rate is not).",
    ),
]
Tune = Annotated[
    str | None,
    typer.Option(
        metavar="ARGUMENTS",
        help=f"Search these too after the learning rate, by optuna: any of {', '.join(TUNABLE)}, "
        "comma-separated, for the optimizers that have them.",
    ),
]
Trials = Annotated[int, typer.Option(min=0, help="Runs of that search, the same number for everyone.")]
EarlyStop = Annotated[
    bool,
    typer.Option(
        "--early-stop/--no-early-stop",
        help="End a run of the search half way if it was never better than before training since a quarter "
        "of its steps.",
    ),
]
Device = Annotated[
    str, typer.Option(help="cpu, cuda, cuda:1, mps, ... Weights and batches are drawn on the CPU.")
]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the model with torch.compile.")]
Autocast = Annotated[
    str | None,
    typer.Option(metavar="|".join(AUTOCAST), help="Precision of forward passes where it is safe."),
]
Accumulate = Annotated[
    int,
    typer.Option(min=1, help="Cut every batch into this many parts; less memory, the same steps."),
]
Clip = Annotated[float | None, typer.Option(help="Global norm to which longer gradients are scaled.")]
Schedule = Annotated[
    str | None,
    typer.Option(metavar="|".join(SCHEDULES), help="Of the learning rate. Default: the task's."),
]
WarmUp = Annotated[
    float | None,
    typer.Option(help="Part of the steps in which the rate rises first. Default: the task's."),
]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads of one run (of each of its processes).")]
Processes = Annotated[
    int, typer.Option(min=1, help="Processes that share a run by torchrun, each with a part of a batch.")
]
Out = Annotated[Path, typer.Option(help="Folder of the records and the report.")]
Executor = Annotated[
    str,
    typer.Option(
        metavar="|".join(KINDS),
        help="Where runs are done: processes of this machine, or a Ray cluster.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(help="Of the Ray cluster: auto (the default), HOST:6379, or ray://HOST:10001."),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Runs at once. Default: as many as the cores, GPUs or nodes hold."),
]
TimeBudget = Annotated[
    str | None,
    typer.Option(help="Start no run after this time (90, 90s, 5m, 1h); run again to go on."),
]
PlanOnly = Annotated[
    bool, typer.Option("--plan", help="Print what would run and what it would cost; run nothing.")
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Run again what is recorded as failed.")]


def words(items: list[str]) -> list[str]:
    """Return the tasks of several comma-separated texts.

    Raises:
        RaceError: there is none.
    """
    found = [word for item in items for word in split_items(item)]
    if not found:
        raise RaceError(f"TASKS is empty; choose from {', '.join(BUILTIN)}, or give module:object")
    return found


def rates(text: str) -> list[float]:
    """Return the numbers of ``--lr-grid``.

    Raises:
        RaceError: one is not a number.
    """
    try:
        return [float(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise RaceError(f"--lr-grid must be comma-separated numbers, got {text!r}") from None


def seconds(text: str) -> float:
    """Return the seconds of ``--time-budget``.

    Raises:
        RaceError: it is no time.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if match is None:
        raise RaceError(f"--time-budget must be a number of seconds, or like 90s, 5m, 1h; got {text!r}")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def use_data(folder: Path | None) -> None:
    """Make a folder the first place where tasks look for files, in this process and its workers.

    Raises:
        RaceError: it is no folder.
    """
    if folder is None:
        return
    if not folder.is_dir():
        raise RaceError(f"--data {folder}: there is no such folder")
    os.environ["STEEPEST_DATA"] = str(folder.resolve())
