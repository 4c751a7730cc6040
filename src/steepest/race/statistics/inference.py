"""Intervals and tests over seeds: Student's t, and Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from scipy.special import stdtr, stdtrit

from steepest.race.statistics.results import Estimate


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return the mean of `values` with its 95 % t-interval, or None if there are no values."""
    n = len(values)
    if n == 0:
        return None
    mean = fmean(values)
    if n == 1:
        return Estimate(mean, None, None, 1)
    half = float(stdtrit(n - 1, 0.975)) * stdev(values) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n)


def paired_p(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return the two-sided p of the paired t-test of `a` against `b`, or None with fewer than two pairs.

    Differences without spread give 1 if they are zero and 0 if they are not.
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    n = len(differences)
    if n < 2:
        return None
    mean, spread = fmean(differences), stdev(differences)
    rounding = 1e-12 * max(map(abs, (*a, *b)))
    if spread <= rounding:
        return 1.0 if abs(mean) <= rounding else 0.0
    return float(2 * stdtr(n - 1, -abs(mean) / (spread / math.sqrt(n))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down corrected p values, in the order given."""
    corrected = [0.0] * len(p_values)
    running = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = running
    return corrected


def detectable_ratio(seeds: int, tests: int, alpha: float = 0.05) -> float | None:
    """Return the smallest mean difference that can be called, in units of the paired differences' spread.

    In standard deviations it is t(1 - alpha / (2 tests), seeds - 1) / sqrt(seeds), the strictest of
    Holm's thresholds, or None with fewer than two seeds.
    """
    if seeds < 2 or tests < 1:
        return None
    return -float(stdtrit(seeds - 1, alpha / (2 * tests))) / math.sqrt(seeds)
