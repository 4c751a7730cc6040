"""The body of ``steepest invariance``: names and options in, the table, files and an exit code out."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steepest._resolve import TargetError
from steepest.checks.command import _parse
from steepest.checks.invariances.measure import DEPENDENT, INVARIANT
from steepest.checks.invariances.table import Row, columns, invariance_table, markdown, surprises
from steepest.checks.invariances.transforms import TRANSFORMS

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["main_invariance"]

WIDTH = 110


def main_invariance(
    names: Sequence[str] | None = None,
    *,
    steps: int = 30,
    models: Sequence[str] | None = None,
    strength: float = 1.0,
    seed: int = 0,
    kwargs: str | None = None,
    out: Sequence[Path] | None = None,
    json: bool = False,
) -> int:
    """Measure the optimizers named, or all, print the table and write the files asked for.

    Args:
        names: rows of the table, optimizer names or ``"module:Class"``; empty means all.
        steps, models, strength, seed: as ``iterations`` and the rest of :func:`steepest.checks.invariance`.
        kwargs: constructor arguments for all of them, as a JSON object.
        out: files to write: ``.png`` the picture, ``.md`` the table as Markdown.
        json: print all results as one JSON object.

    Returns:
        0; 1 if something failed, or a measurement contradicts its prediction; 2 if the request itself was
        wrong.
    """
    try:
        files = [_writable(Path(path)) for path in out or ()]
        rows = _measure(
            list(names or ()),
            iterations=steps,
            models=models or None,
            strength=strength,
            seed=seed,
            arguments=_parse(kwargs),
        )
        for path in files:
            _write(rows, path)
    except (TargetError, ValueError, TypeError, RuntimeError, ModuleNotFoundError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    if json:
        print(json_module.dumps([_plain(row) for row in rows], indent=2))
    else:
        _show(rows)
        for path in files:
            print(f"Written: {path}")
    return 1 if surprises(rows) or any(row.error for row in rows) else 0


def _measure(names: list[str], **options: Any) -> list[Row]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        return invariance_table(
            names,
            on_start=lambda name, i, total: print(f"[{i + 1}/{total}] {name}", file=sys.stderr),
            **options,
        )
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task("", total=None)
        return invariance_table(
            names,
            on_start=lambda name, i, total: progress.update(task, description=name, completed=i, total=total),
            **options,
        )


def _show(rows: list[Row]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    names = columns(rows)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("method", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        cells = [
            Text(row.cell(name), style="bold red" if name in row.surprises() else _style(row, name))
            for name in names
        ]
        table.add_row(Text(row.name), *cells)
    console.print(table)
    _explain(console, rows, names)


def _explain(console: Console, rows: list[Row], names: list[str]) -> None:
    for name in names:
        console.print(
            f"{name:<9} W' = {TRANSFORMS[name].meaning}" if name != "loss" else "loss      f' = 10 f"
        )
    console.print(
        f"Number: deviation of matched trajectories, relative to the distance travelled; up to {INVARIANT:g} "
        f"is invariant, above {DEPENDENT:g} is not. Word: the prediction. '!': they disagree."
    )
    for row in rows:
        if row.error:
            console.print(f"{row.name} failed: {row.error}", markup=False)
    for line in surprises(rows):
        console.print(f"Disagrees: {line}", markup=False)


def _style(row: Row, name: str) -> str:
    return "bold" if row.measured is not None and row.measured.verdict(name) == "yes" else "dim"


def _plain(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "measured": row.measured.to_dict() if row.measured else None,
        "predicted": {name: row.expected(name) for name in TRANSFORMS} if row.prediction else None,
        "why": row.prediction.why if row.prediction else None,
        "disagrees": row.surprises(),
        "error": row.error or None,
    }


def _writable(path: Path) -> Path:
    if path.suffix not in (".png", ".md"):
        raise ValueError(f"--out must end in .png (picture) or .md (table), got {str(path)!r}")
    if path.is_dir():
        raise ValueError(f"--out must be a file, {str(path)!r} is a folder")
    return path


def _write(rows: list[Row], path: Path) -> None:
    from steepest.checks.invariances.picture import draw

    if path.suffix == ".md":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(markdown(rows), encoding="utf-8")
    else:
        draw(rows, path)
