"""The report as tables for other programs: one row per run, per optimizer and task, per claim."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from steepest.race.statistics import ClaimResult, Estimate, Event, OptimizerSummary, Summary, TaskSummary

if TYPE_CHECKING:
    from steepest.race.records import RunRecord

_PLAIN = (
    "key", "task", "task_version", "optimizer", "target", "lr", "aux_lr", "seed", "phase", "steps", "status",
    "error", "final_loss", "seconds", "step_ms", "fwd_bwd_ms", "state_bytes", "peak_memory_bytes",
    "param_count", "started",
)  # fmt: skip


def runs_csv(records: Iterable[RunRecord]) -> str:
    """One row per run: what determined it, what came out, with every metric as a column ``metric.NAME``."""
    rows: list[dict[str, Any]] = []
    for record in records:
        event = Event.of(record)
        row = {name: getattr(record, name, None) for name in _PLAIN}
        row |= {"preset": event.preset, "protocol": event.protocol, "engine": event.engine}
        row["kwargs"] = json.dumps(record.kwargs, default=repr)
        row |= {f"version.{name}": value for name, value in record.versions.items()}
        row |= {f"hardware.{name}": value for name, value in record.hardware.items()}
        row |= {f"metric.{name}": value for name, value in record.metrics.items()}
        rows.append(row)
    return _csv(rows)


def summary_csv(summary: Summary) -> str:
    """One row per task and optimizer: its rank, losses, metrics, rates, budget and cost, as numbers."""
    return _csv([_optimizer(task, o, summary.reference) for task in summary.tasks for o in task.optimizers])


def claims_csv(summary: Summary) -> str:
    """One row per task and claim: what the paper says, what was measured, and the verdict."""
    return _csv([_claim(task, result) for task in summary.tasks for result in task.claims])


def _event(task: TaskSummary) -> dict[str, Any]:
    event = task.event
    return {"task": event.task, "preset": event.preset, "protocol": event.protocol, "engine": event.engine}


def _optimizer(task: TaskSummary, o: OptimizerSummary, reference: str) -> dict[str, Any]:
    pair = None
    if o.name != reference and any(other.name == reference for other in task.optimizers):
        pair = task.pair(o.name, reference)
    row = _event(task) | {
        "steps": task.steps,
        "seeds": " ".join(map(str, task.seeds)),
        "optimizer": o.name,
        "target": o.target,
        "rank": o.rank,
        "best_lr": o.best_lr,
        "best_aux_lr": o.best_aux_lr,
        "best_at_edge": o.best_at_edge,
        "arguments": json.dumps(o.best_arguments, default=repr),
        "trials": o.trials,
        "good_lr_low": o.tunability and o.tunability.low,
        "good_lr_high": o.tunability and o.tunability.high,
        **_spread("val_loss", o.loss),
        f"verdict_against_{reference}": pair and pair.verdict.replace("A ", "").replace("B better", "worse"),
        "p_after_holm": pair and pair.p_holm,
        "steps_to_target": o.steps_to_target,
        "share_of_steps": o.budget,
        "seconds_to_target": o.seconds_to_target,
        "share_of_time": o.time_budget,
        "step_ms": o.step_ms,
        "fwd_bwd_ms": o.fwd_bwd_ms,
        "state_bytes_per_param": o.state_bytes_per_param,
        "peak_memory_bytes": o.peak_memory_bytes,
        "runs": o.runs,
        "diverged": o.diverged,
        "failed": o.failed,
        "note": o.note,
    }
    for name, value in o.metrics.items():
        row |= _spread(name, value)
    return row


def _claim(task: TaskSummary, result: ClaimResult) -> dict[str, Any]:
    claim = result.claim
    return _event(task) | {
        "source": claim.source,
        "text": claim.text,
        "left": claim.left,
        "relation": claim.relation,
        "right": claim.right,
        "metric": claim.metric,
        "margin": claim.margin,
        "left_mean": result.left and result.left.mean,
        "right_mean": result.right and result.right.mean,
        **_spread("better_by", result.advantage),
        "seeds": " ".join(map(str, result.seeds)),
        "verdict": result.verdict,
        "reason": result.reason,
    }


def _spread(name: str, value: Estimate | None) -> dict[str, Any]:
    if value is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: value.mean, f"{name}_low": value.low, f"{name}_high": value.high}


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
