"""One run: a task, an optimizer, a learning rate and a seed in, a record out."""

from __future__ import annotations

import math
import sys
import traceback
from datetime import datetime, timezone
from statistics import median
from typing import Any

from steepest.race.contenders import parse_contender
from steepest.race.loop import Loop
from steepest.race.parallel import ALONE, Alone
from steepest.race.provenance import hardware, versions
from steepest.race.records import CURVE_POINTS, Curve, RunRecord, thin
from steepest.race.schedules import describe_schedule
from steepest.race.spec import RunSpec
from steepest.race.task import Task, one_line
from steepest.race.task_text import load_task


def train(spec: RunSpec, replicas: Alone = ALONE) -> RunRecord:
    """Do a run. Whatever the task or the optimizer raises ends in the record, not in an exception.

    Args:
        spec: what to do.
        replicas: this process's place among those that share the run.
    """
    loop = Loop(spec, replicas)
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    try:
        status, error = loop.go(load_task(spec.task))
    except (Exception, SystemExit) as raised:
        traceback.print_exc(file=sys.stderr)
        what = one_line(f"{type(raised).__name__}: {raised}".rstrip(": "))
        if loop.side is not None and loop.side.has_nonfinite_gradient():
            status, error = "diverged", f"gradient not finite at step {loop.step} ({what})"
        else:
            place = f"step {loop.step}" if loop.step else "before the first step"
            status, error = "failed", f"{what} ({place})"
    metrics = loop.metrics if status == "ok" else {}
    return record_of(
        spec,
        status,
        error=error,
        train_curve=_bin_means(loop.losses),
        twin_curve=_bin_means(loop.twin_losses),
        val_curve=thin(loop.val_curve),
        metrics=metrics,
        final_loss=metrics.get("val_loss", math.inf),
        seconds=sum(loop.pass_seconds) + sum(loop.step_seconds),
        step_ms=1e3 * median(loop.step_seconds) if loop.step_seconds else None,
        fwd_bwd_ms=1e3 * median(loop.pass_seconds) if loop.pass_seconds else None,
        state_bytes=loop.state_bytes(),
        peak_memory_bytes=loop.peak_memory_bytes(),
        param_count=sum(p.numel() for p in loop.side.trainable()) if loop.side else 0,
        started=started,
    )


def record_of(spec: RunSpec, status: str, **outcome: Any) -> RunRecord:
    """Fill a record with what is known of a run before it starts, and with its outcome."""
    task, contender = load_task(spec.task), parse_contender(spec.contender)
    return RunRecord(
        key=spec.key,
        task=task.name,
        task_version=task.version,
        optimizer=spec.name,
        target=contender.target,
        kwargs=contender.kwargs,
        lr=spec.lr,
        aux_lr=spec.aux_lr,
        seed=spec.seed,
        phase=spec.phase,
        steps=spec.steps,
        status=status,
        preset=task.preset,
        protocol=spec.protocol,
        engine=spec.engine.to_dict(),
        versions=versions(),
        hardware=hardware(spec.engine.device),
        settings=_settings(spec, task),
        **outcome,
    )


def _settings(spec: RunSpec, task: Task) -> dict[str, Any]:
    published = {"paper": task.paper.source, "paper_steps": task.paper.steps} if task.paper else {}
    return {
        "description": task.description,
        "task": spec.task,
        "target": task.target,
        "headline": task.headline,
        "claims": [claim.to_dict() for claim in task.claims],
        "batch_size": spec.batch_size,
        "schedule": describe_schedule(str(spec.engine.schedule), float(spec.engine.warmup or 0)),
        **(published if spec.protocol == "paper" else {}),
        **task.settings,
    }


def _bin_means(losses: list[float]) -> Curve:
    """Average a noisy curve over equal bins, each told by its last step."""
    width = math.ceil(len(losses) / CURVE_POINTS) or 1
    bins = [losses[i : i + width] for i in range(0, len(losses), width)]
    return tuple((min((i + 1) * width, len(losses)), sum(b) / len(b)) for i, b in enumerate(bins))
