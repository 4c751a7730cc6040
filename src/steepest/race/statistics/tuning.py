"""The learning rate search in hindsight: loss at each rate, the best, and how wide the good region is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from steepest.race.statistics.results import SweepPoint, Tunability
from steepest.race.statistics.runs import Setting, setting_of, status_of

if TYPE_CHECKING:
    from steepest.race.records import RunRecord


def tunability(sweep: Sequence[SweepPoint], tolerance: float) -> Tunability | None:
    """Return the lr region around the best point of `sweep` within `tolerance` of its loss."""
    points = sorted(sweep, key=lambda point: point.lr)
    losses = [math.inf if point.loss is None else point.loss for point in points]
    if not any(map(math.isfinite, losses)):
        return None
    best = losses.index(min(losses))
    limit = losses[best] + tolerance * abs(losses[best])
    ends: list[float] = []
    at_least = False
    for way in (-1, 1):
        i = best
        while 0 <= i + way < len(points) and losses[i + way] <= limit:
            i += way
        beyond = i + way
        end = math.log10(points[i].lr)
        if not 0 <= beyond < len(points):
            at_least = True
        elif math.isfinite(losses[beyond]):
            share = (limit - losses[i]) / (losses[beyond] - losses[i])
            end += share * (math.log10(points[beyond].lr) - end)
        ends.append(10**end)
    return Tunability(ends[0], ends[1], at_least)


def sweep_points(runs: list[RunRecord]) -> tuple[SweepPoint, ...]:
    """One point per lr, in order of lr; where several aux_lr were tried, the best of them."""
    settings: dict[tuple[float, float | None], list[RunRecord]] = {}
    for run in runs:
        settings.setdefault((run.lr, run.aux_lr), []).append(run)
    points: dict[float, SweepPoint] = {}
    for (lr, aux_lr), same in settings.items():
        states = {status_of(r) for r in same}
        losses = [r.final_loss for r in same if status_of(r) == "ok"]
        status = next((bad for bad in ("diverged", "stopped") if bad in states), "ok" if losses else "failed")
        point = SweepPoint(lr, aux_lr, fmean(losses) if status == "ok" else None, status, len(same))
        if lr not in points or sweep_order(point) < sweep_order(points[lr]):
            points[lr] = point
    return tuple(points[lr] for lr in sorted(points))


def sweep_order(point: SweepPoint) -> float:
    """What to sort points by: the loss, infinite where there is none."""
    return math.inf if point.loss is None else point.loss


def choose(trials: Sequence[RunRecord], finals: Sequence[RunRecord]) -> tuple[Setting | None, str]:
    """The setting to compare at, and a note if it is not simply the best of the search.

    Args:
        trials: the runs of the search, both stages.
        finals: the final runs.
    """
    tried = Counter(map(setting_of, finals))
    results: dict[Setting, list[RunRecord]] = {}
    for run in trials:
        results.setdefault(setting_of(run), []).append(run)
    losses: dict[Setting, float] = {}
    for setting, runs in results.items():
        states = {status_of(r) for r in runs}
        if "ok" in states and not states & {"diverged", "stopped"}:
            losses[setting] = fmean(r.final_loss for r in runs if status_of(r) == "ok")
    if losses:
        lowest = min(losses.values())
        tied = [setting for setting, loss in losses.items() if loss == lowest]
        best = max(tied, key=lambda setting: tried[setting])
        if tried[best] or not tried:
            return best, "" if tried else "tuned, but no final run yet"
        run = max(tried, key=lambda setting: tried[setting])
        return run, f"final runs exist only at lr {run.lr:.3g}; the search's best lr is {best.lr:.3g}"
    if tried:
        return max(tried, key=lambda setting: tried[setting]), "" if trials else "lr given, not swept"
    if trials and all(status_of(run) == "diverged" for run in trials):
        return None, "diverged at every lr tried"
    return None, "no lr gave a result"
