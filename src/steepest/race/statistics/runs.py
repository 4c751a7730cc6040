"""What a single record says, where it needs reading with care."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from steepest.race.records import RunRecord


class Setting(NamedTuple):
    """What is tuned: learning rates, and the other arguments as canonical text."""

    lr: float
    aux_lr: float | None
    arguments: str


def setting_of(run: RunRecord) -> Setting:
    """The setting that a run was done at."""
    return Setting(run.lr, run.aux_lr, json.dumps(dict(run.kwargs), sort_keys=True, default=repr))


def status_of(run: RunRecord) -> str:
    """A run that claims to be ok but has no finite loss counts as diverged."""
    if run.status == "ok" and (run.final_loss is None or not math.isfinite(run.final_loss)):
        return "diverged"
    return run.status


def reason(run: RunRecord) -> str:
    """Why a run has no usable result, in one line."""
    told = next((line.strip() for line in (run.error or "").splitlines() if line.strip()), "")
    return told or ("loss not finite" if status_of(run) == "diverged" else "")


def to_the_end(run: RunRecord) -> Sequence[Sequence[float]]:
    """The validation curve including the final loss, for races that evaluate at the end separately."""
    curve = list(run.val_curve)
    if not curve or curve[-1][0] < run.steps:
        curve.append((run.steps, run.final_loss))
    return curve
