"""Performance profiles: how often an optimizer is within a factor of the best.

For every event p and optimizer s let t(p, s) > 0 be a cost, infinite where the optimizer did not get there,
and r(p, s) = t(p, s) / min over s of t(p, s). The profile of s is

    rho_s(tau) = share of the events with r(p, s) <= tau,

a step function of tau >= 1. rho_s(1) is how often s was the best, the limit for large tau how often it got
there at all. Source: Dolan and Moré, "Benchmarking optimization software with performance profiles",
Mathematical Programming 91 (2002). They run every solver on every problem; where an optimizer was not run on
an event here, the event is not counted for it, and the profile says on how many it rests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steepest.race.statistics.results import OptimizerSummary, TaskSummary


@dataclass(frozen=True)
class Profile:
    """An optimizer's profile: finite ratios in ascending order, and the number of events it was run on."""

    optimizer: str
    ratios: tuple[float, ...]
    events: int

    def share(self, tau: float) -> float:
        """Return rho(tau), 0 to 1."""
        return sum(ratio <= tau for ratio in self.ratios) / self.events if self.events else 0.0


def performance_profiles(costs: Sequence[Mapping[str, float]]) -> tuple[Profile, ...]:
    """Return the profile of every optimizer, best first: by the mean of 1 / r, 0 where not reached.

    Args:
        costs: for each event the cost of every optimizer that was run on it: positive, `math.inf` where it
            did not get there. Events where nobody got there, or with a cost that is not positive (a loss of
            zero has no ratios), are left out.

    Example:
        >>> a, b = performance_profiles([{"A": 1.0, "B": 2.0}, {"A": 3.0, "B": 3.0}])
        >>> a.optimizer, a.share(1.0), b.share(1.0), b.share(2.0)
        ('A', 1.0, 0.5, 1.0)
    """
    ratios: dict[str, list[float]] = {}
    for cost in costs:
        best = min(cost.values(), default=math.inf)
        if not 0 < best < math.inf:
            continue
        for name, value in cost.items():
            ratios.setdefault(name, []).append(value / best)
    profiles = [
        Profile(name, tuple(sorted(r for r in found if math.isfinite(r))), len(found))
        for name, found in ratios.items()
    ]
    return tuple(sorted(profiles, key=lambda p: (-_score(p), p.optimizer)))


def loss_costs(tasks: Sequence[TaskSummary]) -> list[dict[str, float]]:
    """Mean final validation loss of every optimizer on each event; infinite without a finished final run,
    and where a final run diverged."""
    return [{o.name: _final(o) for o in task.optimizers} for task in tasks]


def step_costs(tasks: Sequence[TaskSummary]) -> list[dict[str, float]]:
    """Steps to the tuned reference's final loss on each event that has one; infinite where not reached."""
    return [
        {o.name: math.inf if o.steps_to_target is None else o.steps_to_target for o in task.optimizers}
        for task in tasks
        if task.target is not None
    ]


def _final(o: OptimizerSummary) -> float:
    return math.inf if o.loss is None or o.diverged_seeds else o.loss.mean


def _score(profile: Profile) -> float:
    """The area under the profile drawn over 1 / tau."""
    return sum(1 / ratio for ratio in profile.ratios) / profile.events
