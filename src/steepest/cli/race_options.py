"""The options of `steepest race`, and what their texts mean."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

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

_RUNS, _SEARCH, _ENGINE, _PLACE = "What is run", "Search", "How runs are computed", "Where and how long"


def _option(panel: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, **more)


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
    _option(
        _RUNS,
        help="Comma-separated names or module:Class of any torch optimizer, each with fixed arguments if "
        "wanted, as in 'SGD(nesterov=True)'. 'all' stands for every method of the library, 'default' for "
        f"{', '.join(DEFAULTS)}, or for those of the paper. AdamW always races.",
    ),
]
Preset = Annotated[
    str | None,
    _option(
        _RUNS,
        metavar="|".join(PRESETS),
        help="Size of tasks that come in two and name none: cpu (minutes) or full (for a GPU).",
    ),
]
Protocol = Annotated[
    str,
    _option(
        _RUNS,
        metavar="|".join(PROTOCOLS),
        help="fair: the same search for everyone. paper: steps, batch, seeds, schedule and learning rates of "
        "the paper that a task comes from, sweeping only what the paper swept.",
    ),
]
Seeds = Annotated[
    int | None,
    _option(_RUNS, min=1, help="Paired seeds of the final runs. Default: 3, or the paper's."),
]
Steps = Annotated[
    int | None, _option(_RUNS, min=1, help="Steps of one run. Default: the task's, or the paper's.")
]
Data = Annotated[
    Path | None,
    _option(_RUNS, help="Folder with the tasks' files. Default: STEEPEST_DATA, then a cache of downloads."),
]
LrGrid = Annotated[
    str | None,
    _option(
        _SEARCH,
        help="Comma-separated learning rates to try first, for all. Default: 5 half a decade apart, "
        "around a start of each optimizer's own. A grid whose best rate lies on its edge is continued "
        "(a single rate is not).",
    ),
]
Tune = Annotated[
    str | None,
    _option(
        _SEARCH,
        metavar="ARGUMENTS",
        help=f"Search these too after the learning rate, by optuna: any of {', '.join(TUNABLE)}, "
        "comma-separated, for the optimizers that have them.",
    ),
]
Trials = Annotated[int, _option(_SEARCH, min=0, help="Runs of that search, the same number for everyone.")]
EarlyStop = Annotated[
    bool,
    _option(
        _SEARCH,
        "--early-stop/--no-early-stop",
        help="End a run of the search half way if it was never better than before training since a quarter "
        "of its steps.",
    ),
]
Device = Annotated[
    str, _option(_ENGINE, help="cpu, cuda, cuda:1, mps, ... Weights and batches are drawn on the CPU.")
]
Compile = Annotated[bool, _option(_ENGINE, "--compile", help="Compile the model with torch.compile.")]
Autocast = Annotated[
    str | None,
    _option(_ENGINE, metavar="|".join(AUTOCAST), help="Precision of forward passes where it is safe."),
]
Accumulate = Annotated[
    int,
    _option(_ENGINE, min=1, help="Cut every batch into this many parts; less memory, the same steps."),
]
Clip = Annotated[float | None, _option(_ENGINE, help="Global norm to which longer gradients are scaled.")]
Schedule = Annotated[
    str | None,
    _option(_ENGINE, metavar="|".join(SCHEDULES), help="Of the learning rate. Default: the task's."),
]
WarmUp = Annotated[
    float | None,
    _option(_ENGINE, help="Part of the steps in which the rate rises first. Default: the task's."),
]
Threads = Annotated[int, _option(_ENGINE, min=1, help="CPU threads of one run (of each of its processes).")]
Processes = Annotated[
    int, _option(_ENGINE, min=1, help="Processes that share a run by torchrun, each with a part of a batch.")
]
Out = Annotated[Path, _option(_PLACE, help="Folder of the records and the report.")]
Executor = Annotated[
    str,
    _option(
        _PLACE,
        metavar="|".join(KINDS),
        help="Where runs are done: processes of this machine, or a Ray cluster.",
    ),
]
Address = Annotated[
    str | None,
    _option(_PLACE, help="Of the Ray cluster: auto (the default), HOST:6379, or ray://HOST:10001."),
]
Workers = Annotated[
    int | None,
    _option(_PLACE, min=1, help="Runs at once. Default: as many as the cores, GPUs or nodes hold."),
]
TimeBudget = Annotated[
    str | None,
    _option(_PLACE, help="Start no run after this time (90, 90s, 5m, 1h); run again to go on."),
]
PlanOnly = Annotated[
    bool, _option(_PLACE, "--plan", help="Print what would run and what it would cost; run nothing.")
]
RetryFailed = Annotated[bool, _option(_PLACE, "--retry-failed", help="Run again what is recorded as failed.")]


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
