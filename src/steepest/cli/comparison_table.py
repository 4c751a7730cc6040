"""The table of `steepest compare`."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from steepest.race.statistics import (
    A_BETTER,
    NO_DIFFERENCE,
    Comparison,
    ComparisonRow,
    OptimizerSummary,
    format_estimate,
    format_interval,
    format_lr,
    format_number,
)


def print_comparison(console: Console, compared: Comparison, a: str, b: str) -> None:
    """Print a row per task and optimizer, and what only one side has."""
    one_race = all(row.a.name != row.b.name for row in compared.rows)
    names = (a, b) if one_race else ("A", "B")
    if not one_race:
        console.print(f"A: {a}\nB: {b}", markup=False, highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    titles = ["task", *([] if one_race else ["optimizer"]), *names, f"{names[0]} - {names[1]}", "verdict"]
    titles += ["step time", "state", "memory"]
    for title in titles:
        right = title in (*names, "step time", "state", "memory")
        table.add_column(escape(title), justify="right" if right else "left", overflow="fold")
    for row in compared.rows:
        cells = [row.task, *([] if one_race else [row.a.name]), *(_side(o) for o in (row.a, row.b))]
        cells += [format_interval(row.pair.difference), _verdict(row, names), *map(_times, _ratios(row))]
        table.add_row(*map(escape, cells))
    console.print(table)
    notes = [f"{row.task}: {row.note} differ" for row in compared.rows if row.note]
    notes += [f"Only {names[0]}: {', '.join(compared.only_a)}"] if compared.only_a else []
    notes += [f"Only {names[1]}: {', '.join(compared.only_b)}"] if compared.only_b else []
    notes.append(
        "Final validation loss (best lr) and paired difference with its 95 % interval; verdicts after Holm "
        f"over {len(compared.rows)} rows. Ratios are {names[0]} / {names[1]}."
    )
    console.print("\n".join(dict.fromkeys(notes)), markup=False, highlight=False)


def _side(o: OptimizerSummary) -> str:
    return f"{format_estimate(o.loss)} ({format_lr(o.best_lr)})" if o.loss else "no result"


def _verdict(row: ComparisonRow, names: tuple[str, str]) -> str:
    pair = row.pair
    if pair.verdict == NO_DIFFERENCE:
        return "not testable" if pair.p is None else "not detectable"
    return f"{names[0] if pair.verdict == A_BETTER else names[1]} better"


def _ratios(row: ComparisonRow) -> tuple[float | None, float | None, float | None]:
    return row.step_ratio, row.state_ratio, row.memory_ratio


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{format_number(ratio, 2)}x"
