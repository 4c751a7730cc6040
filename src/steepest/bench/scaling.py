"""How a step's time grows: with the number of parameters, and with the side of a matrix."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch

from steepest.bench.contenders import Contender
from steepest.bench.selection import select
from steepest.bench.sets import Gradients, matrices
from steepest.bench.timing import Say, measure

COUNTS = (1, 3, 10, 30, 96)
"""Matrices of 1024 x 1024: 1.0M to 100.7M parameters."""
SIDES = (128, 256, 512, 1024, 2048, 4096)
BY_COUNT = ("torch AdamW fused", "torch SGD Nesterov fused", "steepest AdamW", "steepest ANDI", "plain ANDI")
BY_SIDE = (
    "torch AdamW fused",
    "steepest ANDI",
    "torch Muon",
    "steepest Muon",
    "steepest MuAdam",
    "pytorch-optimizer SOAP",
    "steepest SOAP",
    "steepest Shampoo",
    "steepest KLShampoo",
    "steepest SPlus",
)
GROWTH = 8
"""What twice the side costs at most: the work of a matrix product."""
LONGEST = 60.0
"""Seconds that a point may take."""


def by_count(
    device: torch.device, seconds: float, say: Say, counts: Sequence[int] = COUNTS
) -> list[dict[str, Any]]:
    """Return the step time of one optimizer after another on more and more matrices of 1024 x 1024."""
    found = []
    for count in counts:
        gradients = Gradients(matrices(count, 1024), device)
        for contender in _rows(BY_COUNT):
            say(f"{contender.name}, {gradients.shapes.entries / 1e6:.1f}M parameters")
            point = _point(contender, gradients, seconds)
            found.append({"name": contender.name, "parameters": gradients.shapes.entries, **point})
    return found


def by_side(
    device: torch.device, seconds: float, say: Say, sides: Sequence[int] = SIDES
) -> list[dict[str, Any]]:
    """Return the step time on one square matrix, mean over a refresh cycle.

    A point that would take more than ``LONGEST`` seconds, going by the one before, is not measured and says
    so.
    """
    found = []
    for contender in _rows(BY_SIDE):
        expected = 0.0
        for side in sides:
            point: dict[str, Any] = {"name": contender.name, "side": side}
            if expected > LONGEST:
                found.append(point | {"error": f"left out: it would take about {expected:.0f} s"})
                continue
            say(f"{contender.name}, side {side}")
            point |= _point(contender, Gradients(matrices(1, side), device), seconds)
            found.append(point)
            steps = 2 * contender.cycle + 1  # the first, the warm-up and one cycle
            expected = GROWTH * steps * point.get("ms", 0.0) / 1e3
    return found


def exponent(points: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Return p and r^2 of the least-squares line log y = p log x + c; None for fewer than 3 points."""
    if len(points) < 3:
        return None
    x, y = [math.log(a) for a, _ in points], [math.log(b) for _, b in points]
    line = statistics.linear_regression(x, y)
    return line.slope, statistics.correlation(x, y) ** 2


def _rows(names: Sequence[str]) -> list[Contender]:
    known, _ = select(["all"], ["default"])
    return [row for name in names for row in known if row.name == name]


def _point(contender: Contender, gradients: Gradients, seconds: float) -> dict[str, Any]:
    rows, whole = measure([contender], gradients, seconds)
    if not whole:
        raise KeyboardInterrupt
    row = rows[0]
    if row.error:
        return {"error": row.error}
    length = contender.cycle
    means = [statistics.fmean(row.times[i : i + length]) for i in range(0, len(row.times), length)]
    return {"ms": float(f"{1e3 * statistics.median(means):.4g}")}
