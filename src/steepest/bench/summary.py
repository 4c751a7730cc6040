"""From the times of rounds to the numbers of a table: plain data in, plain data out."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Panel = dict[str, Any]
"""One set and one family as the results file holds it."""


@dataclass(frozen=True)
class Spread:
    """A middle with its quartiles."""

    middle: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return median and quartiles; of one value, that value."""
    if len(values) < 2:
        return Spread(values[0], values[0], values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


def cycles(row: dict[str, Any]) -> list[float]:
    """Return the mean step time in ms of every refresh cycle: for a cycle of 1, the step times."""
    length, times = row["cycle"], row["times_ms"]
    return [statistics.fmean(times[i : i + length]) for i in range(0, len(times) - length + 1, length)]


def measured(panel: Panel) -> list[dict[str, Any]]:
    """Return the rows that have times."""
    return [row for row in panel["rows"] if row.get("times_ms") and cycles(row)]


def step_ms(row: dict[str, Any]) -> Spread:
    """Return the time of a step in ms: the median over rounds, of means over a refresh cycle."""
    return spread(cycles(row))


def jump(row: dict[str, Any]) -> float:
    """Return the longest step over the median step."""
    return max(row["times_ms"]) / statistics.median(row["times_ms"])


def ratio(row: dict[str, Any], other: dict[str, Any]) -> Spread:
    """Return how many times the other's step takes: the median, over rounds, of ratios in one round.

    Where either has a refresh cycle, a "round" is as many steps as the longer of the two cycles.
    """
    length = max(row["cycle"], other["cycle"])
    ours, theirs = (cycles({"cycle": length, "times_ms": r["times_ms"]}) for r in (row, other))
    return spread([a / b for a, b in zip(ours, theirs, strict=True)])


def beyond_seconds(row: dict[str, Any]) -> float:
    """Return what the first step takes beyond a steady one, in seconds."""
    return (row["first_ms"] - statistics.median(row["times_ms"])) / 1e3


def fastest_peer(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the fastest row of another library with the same method, or None."""
    others = [r for r in rows if r["method"] == row["method"] and r["library"] not in ("steepest", "plain")]
    return min(others, key=lambda r: step_ms(r).middle, default=None)
