"""The learning rate search: the same number of points on the same lattice for everyone.

A grid has `POINTS` rates half a decade apart around a start. When the best of them lies on the edge, the
next rate beyond that edge is tried, at most `EXTENSIONS` times. What to run next is a function of the
results so far and of nothing else, so an interrupted search continues where it stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steepest.race.records import RaceError

POINTS = 5
RATIO = math.sqrt(10)
EXTENSIONS = 4


@dataclass(frozen=True)
class Grid:
    """Learning rates in increasing order, and how the grid is continued at its ends.

    ``ends`` are the lowest and highest rate before rounding, so that continued grids stay on one lattice.
    """

    points: tuple[float, ...]
    ends: tuple[float, float]
    ratio: float = RATIO
    extensions: int = EXTENSIONS

    @classmethod
    def around(cls, start: float) -> Grid:
        """Return the default grid, centred on the half decade nearest to `start`."""
        centre = round(math.log(start, RATIO))
        exact = [RATIO ** (centre + i - POINTS // 2) for i in range(POINTS)]
        return cls(tuple(map(_rounded, exact)), (exact[0], exact[-1]))

    @classmethod
    def explicit(cls, rates: Sequence[float]) -> Grid:
        """Return a grid of given rates, continued by their mean ratio; a single rate is not continued.

        Raises:
            RaceError: a rate is not a positive finite number, or there is none.
        """
        bad = [rate for rate in rates if not (math.isfinite(rate) and rate > 0)]
        if bad or not rates:
            raise RaceError(f"--lr-grid must be positive finite numbers, got {bad[0] if bad else 'none'}")
        points = tuple(sorted(set(rates)))
        if len(points) == 1:
            return cls(points, (points[0], points[0]), extensions=0)
        return cls(points, (points[0], points[-1]), (points[-1] / points[0]) ** (1 / (len(points) - 1)))

    def beyond(self, below: int, above: int) -> tuple[float, ...]:
        """Return the grid continued by so many points at its lower and upper end."""
        low = tuple(_rounded(self.ends[0] / self.ratio**i) for i in range(below, 0, -1))
        high = tuple(_rounded(self.ends[1] * self.ratio**i) for i in range(1, above + 1))
        return low + self.points + high


@dataclass(frozen=True)
class Search:
    """What a search knows: the rates it wants in all, the best of them once it is `done`, and its edge.

    `best` is None when every rate diverged; `on_edge` says that the best one still lay on the edge when
    the extensions were used up.
    """

    rates: tuple[float, ...]
    done: bool
    best: float | None = None
    on_edge: bool = False


def search(grid: Grid, losses: Mapping[float, float]) -> Search:
    """Decide what to try next from the losses so far (infinite for a run that diverged or failed).

    The lowest loss wins; of equals, the smaller rate. If every rate diverged, the grid goes down.
    """
    below = above = 0
    while True:
        rates = grid.beyond(below, above)
        if any(rate not in losses for rate in rates):
            return Search(rates, done=False)
        best = min(rates, key=lambda rate: (losses[rate], rate))
        edge = grid.extensions > 0 and best in (rates[0], rates[-1])
        if not edge or below + above >= grid.extensions:
            found = best if math.isfinite(losses[best]) else None
            return Search(rates, done=True, best=found, on_edge=edge and found is not None)
        if best == rates[0]:
            below += 1
        else:
            above += 1


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")
