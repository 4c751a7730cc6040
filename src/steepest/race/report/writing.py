"""The report as a folder of files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from steepest.race.report.document import write_atomically
from steepest.race.report.page import INDEX, picture_name, render_pages
from steepest.race.report.picture import write_curves_png
from steepest.race.report.settings import Origin
from steepest.race.report.tablefiles import claims_csv, runs_csv, summary_csv
from steepest.race.statistics import Summary

if TYPE_CHECKING:
    from steepest.race.records import RunRecord

RUNS, SUMMARY, CLAIMS = "runs.csv", "summary.csv", "claims.csv"


def write_report(
    summary: Summary,
    folder: str | os.PathLike[str],
    *,
    records: Iterable[RunRecord] = (),
    origins: Sequence[Origin] = (),
    pictures: bool = True,
) -> Path:
    """Write the report into a folder, and return the path of its first page, ``index.html``.

    Beside it: a page for each task where there are several, ``runs.csv``, ``summary.csv``, ``claims.csv``
    where tasks carry claims, and a PNG per task. Every page is one HTML file that needs nothing else.

    Args:
        summary: what `steepest.race.statistics.summarize` returned.
        folder: made if it is missing. A file of an earlier report is replaced in one move, so a reader
            never sees half of one; files that this report does not have are left alone.
        records: the records behind the summary, for settings, versions and hardware.
        origins: the command lines that repeat the races, shown as they are.
        pictures: whether to draw the PNGs, which take longer than all the rest.

    Raises:
        OSError: the folder cannot be made or written.
    """
    known, folder = list(records), Path(folder)
    tables = table_files(summary, known)
    drawn = {
        picture_name(summary, task): task
        for task in summary.tasks
        if pictures and any(o.validation for o in task.optimizers)
    }
    for name, task in drawn.items():
        write_curves_png(summary, folder / name, only=task)
    for name, content in tables.items():
        write_atomically(folder / name, content.encode())
    pages = render_pages(summary, records=known, origins=origins, files=[*tables, *drawn])
    for name, content in reversed(pages.items()):  # the index last: it links to the others
        write_atomically(folder / name, content.encode())
    return folder / INDEX


def table_files(summary: Summary, records: Iterable[RunRecord]) -> dict[str, str]:
    """Return the tables that a report holds for other programs, by the names of their files."""
    tables = {RUNS: runs_csv(records), SUMMARY: summary_csv(summary)}
    if any(task.claims for task in summary.tasks):
        tables[CLAIMS] = claims_csv(summary)
    return tables
