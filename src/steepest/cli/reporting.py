"""`steepest report` and `steepest compare`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from steepest.cli.comparison_table import print_comparison
from steepest.cli.terminal import console
from steepest.race.live import print_results
from steepest.race.manifest import latest_race
from steepest.race.records import RaceError, RunRecord, read_records
from steepest.race.report import Origin, write_report
from steepest.race.statistics import compare_folders, compare_optimizers, summarize

SUBFOLDER = "report"
MERGED = Path("race-report")


def report(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="FOLDERS", help="Folders of races. Default: race-results.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write into. Default: 'report' in the folder of the race; 'race-report' here for "
            "several folders."
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Tell of all records, not only those of each folder's latest race.")
    ] = False,
    pictures: Annotated[bool, typer.Option(help="Draw a PNG of each task.")] = True,
) -> None:
    """Print the tables of recorded races and write their report again, from the records alone.

    The records of several folders are told in one report. Task, preset, protocol and engine decide what is
    compared with what, so that races at several sizes or under both protocols can stand side by side.
    """
    folders = folders or [Path("race-results")]
    records, origins = read_races(folders, every)
    target = out or (folders[0] / SUBFOLDER if len(folders) == 1 else MERGED)
    conclude(console(), records, target, origins, folders[0], pictures=pictures)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Folder of a race, or with --in an optimizer.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What to compare it with.")],
    folder: Annotated[
        Path | None, typer.Option("--in", help="Folder in which to compare two optimizers.")
    ] = None,
) -> None:
    """Compare two races, or two optimizers of one race, seed by seed.

    For every task that both have: the difference of the final validation losses with its 95 % interval and a
    verdict (paired t-test over the shared seeds, corrected by Holm over the rows), and the ratios of step
    time, optimizer state and peak memory. A difference is no error: the exit code is 0.
    """
    if folder is not None:
        found, _ = _race_of(folder, every=True)
        compared = compare_optimizers(summarize(found), a, b)
    else:
        sides = [summarize(_race_of(Path(side), every=False)[0]) for side in (a, b)]
        compared = compare_folders(*sides)
    print_comparison(console(), compared, a, b)


def conclude(
    screen: Console,
    records: list[RunRecord],
    out: Path,
    origins: list[Origin],
    logs: Path,
    *,
    pictures: bool = True,
) -> bool:
    """Print tables and failures, write the report into `out`; return whether any run worked."""
    if not records:
        print("Nothing has been run.")
        return False
    summary = summarize(records)
    print_results(screen, summary)
    failed = [record for record in records if record.status == "failed"]
    if failed:
        print(f"\n{len(failed)} of {len(records)} runs failed (tracebacks in {logs / 'workers.log'}):")
        for text in dict.fromkeys(f"  {r.task} {r.optimizer}: {r.error}" for r in failed):
            print(text)
    try:
        path = write_report(summary, out, records=records, origins=origins, pictures=pictures)
    except OSError as error:
        raise RaceError(f"cannot write to {out}: {error.strerror}") from None
    print(f"\nReport: {path}")
    return any(record.status == "ok" for record in records)


def read_races(folders: Iterable[Path], every: bool = False) -> tuple[list[RunRecord], list[Origin]]:
    """Return the records of several folders, each once, and the commands that asked for them."""
    records: dict[str, RunRecord] = {}
    origins: list[Origin] = []
    for folder in folders:
        found, origin = _race_of(folder, every)
        records |= {record.key: record for record in found}
        origins += [origin] if origin else []
    return list(records.values()), origins


def _race_of(folder: Path, every: bool) -> tuple[list[RunRecord], Origin | None]:
    records, command = latest_race(folder)
    origin = Origin(command, frozenset(record.key for record in records)) if command else None
    return (read_records(folder) if every else records), origin
