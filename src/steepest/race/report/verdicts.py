"""The part of the report that compares every two optimizers."""

from __future__ import annotations

from steepest.race.report.markup import Markup, join, tag
from steepest.race.report.tables import Looks, name_cell, table
from steepest.race.report.words import (
    power_text,
)
from steepest.race.statistics import (
    NO_DIFFERENCE,
    PairResult,
    Summary,
    TaskSummary,
    format_estimate,
    format_number,
)


def verdicts(task: TaskSummary, style: Looks, summary: Summary) -> Markup:
    """Who is better than whom: a matrix of verdicts, and every pair in numbers."""
    title = tag("h3", "Who is better than whom")
    power = tag("p", power_text(task, summary.alpha), class_="note")
    if not task.pairs:
        return join([title, power])
    names = [o.name for o in task.optimizers]
    rows: list[Markup] = []
    for a in names:
        cells = [tag("td", class_="self") if a == b else _verdict_cell(task.pair(a, b)) for b in names]
        rows.append(tag("tr", name_cell(a, style), *cells))
    matrix = table(["row against column", *names], rows, kind="matrix")
    return join([title, power, matrix, _pair_table(task)])


def _verdict_cell(pair: PairResult) -> Markup:
    if pair.verdict == NO_DIFFERENCE:
        words = tag("span", "not tested" if pair.p is None else "none detected", class_="none")
    elif pair.better == pair.a:
        words = tag("span", "▲ better", class_="up")
    else:
        words = tag("span", "▼ worse", class_="down")
    p = "by divergence" if pair.p_holm is None and pair.better else _p(pair.p_holm)
    return tag("td", words, tag("span", p, class_="sub") if p != "–" else "", title=pair.reason)


def _p(p: float | None) -> str:
    if p is None:
        return "–"
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}" if p < 0.1 else f"p {p:.2f}"


def _why(pair: PairResult) -> str:
    """The reason of a verdict, where the corrected p does not tell it."""
    by_p = pair.p_holm is not None and (pair.better is not None or "diverged" not in pair.reason)
    return "" if by_p else pair.reason


def _pair_table(task: TaskSummary) -> Markup:
    head = ["A", "B", "seeds", "loss(A) − loss(B)", "p", "p after Holm", "smallest callable", "verdict"]
    rows = [
        tag(
            "tr",
            tag("th", pair.a, scope="row"),
            tag("th", pair.b, scope="row"),
            tag("td", len(pair.seeds), class_="num"),
            tag("td", format_estimate(pair.difference), class_="num"),
            tag("td", _p(pair.p).removeprefix("p "), class_="num"),
            tag("td", _p(pair.p_holm).removeprefix("p "), class_="num"),
            tag("td", format_number(pair.detectable, 2), class_="num"),
            tag("td", pair.verdict, tag("span", _why(pair), class_="sub"), class_="keep"),
        )
        for pair in task.pairs
    ]
    body = table(head, rows, numeric=range(2, 7))
    return tag("details", tag("summary", "Every pair in numbers"), body)
