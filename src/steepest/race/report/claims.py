"""The table of claims: what the paper says, what was measured, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steepest.race.paper import Claim
from steepest.race.report.markup import Markup, join, tag
from steepest.race.report.tables import table
from steepest.race.report.words import metric_name
from steepest.race.statistics import (
    HOLDS,
    REFUTED,
    UNDECIDED,
    ClaimResult,
    TaskSummary,
    decimals,
    format_estimate,
    format_interval,
    format_lr,
)

WORDS = {HOLDS: ("✓ holds", "up"), REFUTED: ("✕ does not hold", "down"), UNDECIDED: ("? undecided", "none")}
NOTE = (
    "The advantage is the mean paired difference over seeds in favour of the first named, with its 95 % "
    "t-interval; below zero the other one was better. A claim holds if the whole interval bears it out, and "
    "does not hold if the whole interval contradicts it; otherwise these seeds cannot tell."
)


def claims_table(tasks: Sequence[TaskSummary], links: Mapping[str, str] | None = None) -> Markup:
    """One row per claim and task; with `links` (pages by task) the first column names the task."""
    head = ["verdict", "the paper says", "we measured"]
    rows: list[Markup] = []
    for task, result in _by_claim(tasks):
        cells = _cells(result)
        if links is not None:
            cells.insert(0, tag("th", tag("a", task.name, href=links[task.name]), scope="row"))
        rows.append(tag("tr", *cells))
    if links is not None:
        head.insert(0, "task")
    return join([tag("p", NOTE, class_="note"), table(head, rows, kind="claims")])


def compared(claim: Claim) -> str:
    """The comparison that a claim makes, in words."""
    right = claim.right if isinstance(claim.right, str) else format_lr(claim.right)
    relation = {"better": "better than", "no worse": "no worse than", "equal": "equal to"}[claim.relation]
    margin = f", margin {format_lr(claim.margin)}" if claim.margin else ""
    return f"{claim.left} {relation} {right} in {metric_name(claim.metric)}{margin}"


def tally(tasks: Sequence[TaskSummary]) -> dict[str, int]:
    """How many claims came out how."""
    verdicts = [result.verdict for task in tasks for result in task.claims]
    return {word: verdicts.count(word) for word in WORDS}


def _by_claim(tasks: Sequence[TaskSummary]) -> list[tuple[TaskSummary, ClaimResult]]:
    """All results, those of one claim on the events of one task next to each other."""
    found: dict[tuple[str, Claim], list[tuple[TaskSummary, ClaimResult]]] = {}
    for task in tasks:
        for result in task.claims:
            found.setdefault((task.event.task, result.claim), []).append((task, result))
    order = list(dict.fromkeys(task.event.task for task in tasks))
    keys = sorted(found, key=lambda key: order.index(key[0]))
    return [item for key in keys for item in found[key]]


def _cells(result: ClaimResult) -> list[Markup]:
    claim = result.claim
    words, kind = WORDS[result.verdict]
    sides: list[object] = []
    places = decimals(result.left)
    for name, value in ((claim.left, result.left), (claim.right, result.right)):
        if isinstance(name, str) and value is not None:
            sides.append(tag("span", f"{name} {format_estimate(value, places)}", class_="line-of"))
    if result.advantage is not None:
        sides.append(tag("span", f"advantage {format_interval(result.advantage)}", class_="line-of"))
    return [
        tag("td", tag("span", words, class_=kind), class_="keep"),
        tag(
            "td",
            f"“{claim.text}”",
            tag("span", claim.source, class_="sub"),
            tag("span", f"Put to the test: {compared(claim)}", class_="sub"),
            class_="prose",
        ),
        tag("td", *sides, tag("span", result.reason, class_="sub")),
    ]
