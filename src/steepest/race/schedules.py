"""How the learning rate goes over a run: a rise, then constant or falling to zero."""

from __future__ import annotations

import math

from steepest.race.records import RaceError
from steepest.spelling import suggest

SCHEDULES = ("linear", "cosine", "constant")


def check_schedule(schedule: str, warmup: float) -> None:
    """Refuse what `lr_factor` cannot follow.

    Raises:
        RaceError: the schedule is unknown, or the warm-up is not a part of the run.
    """
    if schedule not in SCHEDULES:
        hint = suggest(str(schedule), list(SCHEDULES))
        raise RaceError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}{hint}")
    if not 0 <= warmup < 1:
        raise RaceError(f"warmup must be a part of the steps, at least 0 and below 1, got {warmup!r}")


def lr_factor(done: int, steps: int, schedule: str = "linear", warmup: float = 0.05) -> float:
    """Return what the learning rate of the next step is multiplied by.

    The factor is r(t) f(t/T) after t of T steps: r rises linearly to 1 over the first `warmup` T steps
    (at least one step, so that a warm-up of 0 is none), and f(x) is 1 - x for "linear", (1 + cos pi x) / 2
    for "cosine", 1 for "constant".
    """
    rise = min(1.0, (done + 1) / max(1, round(warmup * steps)))
    part = done / steps
    if schedule == "linear":
        return rise * (1 - part)
    return rise * (0.5 * (1 + math.cos(math.pi * part)) if schedule == "cosine" else 1.0)


def describe_schedule(schedule: str, warmup: float) -> str:
    """Say the schedule in words, for reports."""
    rise = f"linear warm-up over {100 * warmup:.4g}% of the steps, then " if warmup else ""
    fall = {"linear": "linear decay to zero", "cosine": "cosine decay to zero", "constant": "constant"}
    return rise + fall[schedule]
