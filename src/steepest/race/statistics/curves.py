"""Mean loss curves over seeds, and where they come down to a target."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from steepest.race.statistics.results import Curve


def mean_curve(curves: Iterable[Sequence[Sequence[float]]]) -> Curve | None:
    """Average [[step, loss], ...] curves over the steps that all of them cover, interpolating where needed.

    A curve ends at its first non-finite loss; empty curves are left out.
    """
    usable: list[tuple[list[float], list[float]]] = []
    for curve in curves:
        steps: list[float] = []
        losses: list[float] = []
        for step, loss in sorted(curve, key=lambda point: point[0]):
            if loss is None or not math.isfinite(loss):
                break
            steps.append(float(step))
            losses.append(float(loss))
        if steps:
            usable.append((steps, losses))
    if not usable:
        return None
    start, end = max(steps[0] for steps, _ in usable), min(steps[-1] for steps, _ in usable)
    grid = sorted({step for steps, _ in usable for step in steps if start <= step <= end})
    if not grid:
        return None
    values = np.array([np.interp(grid, steps, losses) for steps, losses in usable])
    mean, low, high = values.mean(0), values.min(0), values.max(0)
    return Curve(tuple(grid), tuple(mean.tolist()), tuple(low.tolist()), tuple(high.tolist()), len(usable))


def first_crossing(steps: Sequence[float], losses: Sequence[float], target: float) -> float | None:
    """Return the interpolated step at which a loss curve first comes down to `target`, or None."""
    reach = target + 1e-9 * abs(target)
    for i, loss in enumerate(losses):
        if loss <= reach:
            if i == 0 or losses[i - 1] == loss:
                return float(steps[i])
            share = (losses[i - 1] - target) / (losses[i - 1] - loss)
            return float(steps[i - 1] + min(1.0, share) * (steps[i] - steps[i - 1]))
    return None
