"""What is left of a race, and what it would cost."""

from __future__ import annotations

from dataclasses import dataclass

from steepest.race.lane import Lane
from steepest.race.runner import Race


@dataclass(frozen=True)
class Cost:
    """What a lane would still cost: runs, steps and seconds of one core."""

    lane: Lane
    runs: int
    steps: int
    seconds: float
    measured: bool


def plan(race: Race) -> list[Cost]:
    """Estimate what is left, from the records of the same task and optimizer where there are any.

    Extensions of a grid cannot be foreseen and are not counted, nor are runs that will be stopped.
    """
    costs: list[Cost] = []
    for lane in race.lanes():
        runs = lane.expected - lane.finished
        seen = [
            r.seconds / r.train_curve[-1][0]
            for r in race.records.values()
            if (r.task, r.preset, r.target) == (lane.task.name, lane.task.preset, lane.contender.target)
            and r.train_curve
            and r.seconds
        ]
        per_step = sum(seen) / len(seen) if seen else lane.task.step_ms / 1e3
        steps = runs * lane.steps
        costs.append(Cost(lane, runs, steps, steps * per_step, bool(seen)))
    return costs
