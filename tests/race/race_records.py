"""Records by code, for tests of what is made of them."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from steepest.race.records import RunRecord
from steepest.race.statistics import summarize

_key = itertools.count()


def run(optimizer: str, phase: str, lr: float, seed: int, loss: float | None, **over: Any) -> RunRecord:
    """A record; a loss of None is a run that diverged."""
    ok = loss is not None
    fields: dict[str, Any] = {
        "key": str(next(_key)),
        "task": "toy",
        "task_version": "1",
        "optimizer": optimizer,
        "target": f"steepest:{optimizer}",
        "kwargs": {},
        "lr": lr,
        "aux_lr": None,
        "seed": seed,
        "phase": phase,
        "steps": 100,
        "status": "ok" if ok else "diverged",
        "error": None if ok else "loss is not finite at step 7",
        "train_curve": ((1, 2.0), (100, loss)) if ok else ((1, 2.0), (7, math.nan)),
        "val_curve": ((0, 2.0), (100, loss)) if ok else (),
        "metrics": {"val_loss": loss, "val_accuracy": 1 - loss / 10} if ok else {},
        "final_loss": loss if ok else math.inf,
        "seconds": 1.0,
        "step_ms": 2.0,
        "fwd_bwd_ms": 8.0,
        "state_bytes": 800,
        "param_count": 100,
    }
    return RunRecord(**(fields | over))


def finals(optimizer: str, losses: Sequence[float | None], **over: Any) -> list[RunRecord]:
    return [run(optimizer, "final", 0.1, seed, loss, **over) for seed, loss in enumerate(losses, 1)]


def sweep(optimizer: str, losses: dict[float, float | None]) -> list[RunRecord]:
    return [run(optimizer, "sweep", lr, 0, loss) for lr, loss in losses.items()]


def only(records: Sequence[RunRecord], **options: Any):
    (task,) = summarize(records, **options).tasks
    return task
