"""`steepest bench`."""

from __future__ import annotations

import shlex
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich import box
from rich import table as rich_table
from rich.console import Console
from rich.text import Text

from steepest.bench.contenders import BenchError
from steepest.bench.page import markdown, marked, update
from steepest.bench.peers import COMMON_PEERS, PEERS
from steepest.bench.results import dump, read
from steepest.bench.runner import DEFAULT_SETS, Settings, run
from steepest.bench.selection import DEFAULTS
from steepest.bench.sets import SETS
from steepest.bench.tables import Table, about, count_table, panel_table, remarks, side_table, target_table
from steepest.cli.racing import INTERRUPTED
from steepest.cli.terminal import UsageError, console


class Format(str, Enum):
    """What is printed on standard output."""

    table = "table"
    markdown = "markdown"
    json = "json"


def bench(
    context: typer.Context,
    sets: Annotated[str, typer.Option(help=f"Comma-separated parameter sets: {', '.join(SETS)}.")] = ",".join(
        DEFAULT_SETS
    ),
    optimizers: Annotated[
        str,
        typer.Option(
            help=f"Comma-separated methods of the library; 'default' stands for {', '.join(DEFAULTS)}, 'all' "
            "for every one. Shampoo's kin take minutes on gpt: try them on block."
        ),
    ] = "default",
    peers: Annotated[
        str,
        typer.Option(
            help=f"Comma-separated: {', '.join(PEERS)}; 'default' stands for {', '.join(COMMON_PEERS)}, "
            "'none' for none. torch's fused AdamW always takes part."
        ),
    ] = "default",
    rounds: Annotated[
        int | None, typer.Option(help="Rounds of each table. Default: what fits into --seconds.")
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(
            help="Time for the rounds of each table, which are at least 5 and come in whole refresh cycles."
        ),
    ] = 10.0,
    device: Annotated[str | None, typer.Option(help="cpu or cuda. Default: cuda if there is one.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of torch. Default: its own.")] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="All methods, and scaling, import time, copy bandwidth and orthogonality: plan an hour or "
            "more on two cores.",
        ),
    ] = False,
    out: Annotated[Path, typer.Option(help="File of the results, JSON.")] = Path("bench-results.json"),
    page: Annotated[
        Path | None, typer.Option(help="Markdown page whose marked part is written from the results.")
    ] = None,
    format: Annotated[Format, typer.Option(help="What to print.")] = Format.table,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Do not go on with an unfinished run in --out.")
    ] = False,
) -> None:
    """Time optimizer steps side by side: the library's, torch's and those of other packages.

    Every optimizer has its own copy of the parameters and gets the same gradients. Each round steps all of
    them once, in an order that rotates, so that a busy moment of the machine hits all alike; ratios are
    medians over rounds. First step, memory and state are measured too.

    Results are kept as they come: an interrupted call goes on where it stopped, a finished one starts anew.

    Example: steepest bench --sets gpt,small --optimizers ANDI,Muon --peers torch --seconds 10
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    screen, notes = console(), Console(stderr=True)
    live = notes.is_terminal
    try:
        settings = Settings(
            sets=_words(sets, "sets"),
            optimizers=("all",) if full and optimizers == "default" else _words(optimizers, "optimizers"),
            peers=_words(peers, "peers"),
            seconds=seconds,
            rounds=rounds,
            device=device,
            threads=threads,
            extra=full,
        )
        if page is not None:
            marked(page, torch.device(device).type)
        command = shlex.join(["steepest", *context.obj])
        with notes.status("") as status:

            def finished(panel: dict[str, Any]) -> None:
                if format is Format.table:
                    status.stop()
                    print_panel(screen, panel)
                    status.start()

            def say(line: str) -> None:
                if live:
                    status.update(line)
                elif "round" not in line:
                    print(f"steepest: {line}", file=sys.stderr)

            stopped = False
            try:
                run(settings, out, command, say, finished, fresh=fresh)
            except KeyboardInterrupt:
                stopped = True
        results = read(out)
        assert results is not None  # `run` has written it
        print_end(screen, results, format)
        if page is not None and not stopped:
            for path in update(page, results):
                print(f"steepest: wrote {path}", file=sys.stderr)
    except BenchError as error:
        raise UsageError(str(error)) from None
    if stopped:
        print(f"steepest: stopped; what is measured is in {out}, the same call goes on", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)


def print_panel(screen: Console, panel: dict[str, Any]) -> None:
    """Print the table of one family on one set."""
    screen.print()
    _print(screen, panel_table(panel))
    for line in remarks(panel):
        screen.print(Text(line, style="dim"))


def print_end(screen: Console, results: dict[str, Any], format: Format) -> None:
    """Print what comes after the panels, or everything in another format."""
    if format is Format.json:
        print(dump(results), end="")
        return
    if format is Format.markdown:
        print(markdown(results))
        return
    grown = results.get("scaling", {})
    tables = [
        make(grown[name]) for name, make in (("count", count_table), ("side", side_table)) if grown.get(name)
    ]
    tables.append(target_table(results, unknown=False))
    for table in (table for table in tables if table.rows):
        screen.print()
        _print(screen, table)
    screen.print()
    for line in about(results):
        screen.print(Text(line), soft_wrap=True)


def _print(screen: Console, table: Table) -> None:
    shown = rich_table.Table(
        title=Text(table.caption, style="bold") if table.caption else None,
        title_justify="left",
        box=box.SIMPLE_HEAD if screen.is_terminal else None,
        pad_edge=False,
    )
    if not table.rows:
        screen.print(Text(table.caption, style="bold"))
        return
    for i, title in enumerate(table.titles):
        names = i == 0 and table.words == 1  # the column that must not be cut
        longest = max(len(row[0]) for row in table.rows) if names else None
        shown.add_column(title, justify="left" if i < table.words else "right", min_width=longest)
    for row in table.rows:
        shown.add_row(*(Text(cell, no_wrap=table.words == 1) for cell in row))
    screen.print(shown)


def _words(text: str, option: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if not words:
        raise UsageError(f"--{option} is empty")
    return words
