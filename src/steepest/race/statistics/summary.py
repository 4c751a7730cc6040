"""From run records to a summary."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean, median
from typing import TYPE_CHECKING

from steepest.race.statistics.claims import DEVIATION, claims_of, judge
from steepest.race.statistics.curves import first_crossing, mean_curve
from steepest.race.statistics.events import Event, titles
from steepest.race.statistics.inference import estimate
from steepest.race.statistics.pairs import pairs
from steepest.race.statistics.results import OptimizerSummary, OverallRow, Problem, Summary, TaskSummary
from steepest.race.statistics.runs import reason, setting_of, status_of, to_the_end
from steepest.race.statistics.tuning import choose, sweep_order, sweep_points, tunability

if TYPE_CHECKING:
    from steepest.race.records import RunRecord


def summarize(
    records: Iterable[RunRecord], *, reference: str = "AdamW", alpha: float = 0.05, tolerance: float = 0.10
) -> Summary:
    """Summarize run records; the rules are in the docstring of `steepest.race.statistics`.

    Args:
        records: any mixture of tasks, presets, protocols, engines, optimizers and phases, complete or cut
            short. Of two records of the same run the later one counts. Runs of an older task version, or of
            another number of steps than most of their phase, are left out and counted in
            `TaskSummary.ignored`.
        reference: display name of the optimizer whose tuned final loss is the target.
        alpha: family-wise error rate of the pair verdicts on one task, in (0, 1).
        tolerance: relative excess over the best tuning loss that still counts as a good lr, > 0.

    Raises:
        ValueError: `alpha` or `tolerance` is out of range.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie strictly between 0 and 1, got {alpha!r}")
    if not (tolerance > 0 and math.isfinite(tolerance)):
        raise ValueError(f"tolerance must be a finite number > 0, got {tolerance!r}")
    by_event: dict[Event, list[RunRecord]] = {}
    for record in records:
        by_event.setdefault(Event.of(record), []).append(record)
    order = list(dict.fromkeys(event.task for event in by_event))
    by_event = {event: by_event[event] for event in sorted(by_event, key=lambda e: order.index(e.task))}
    names = titles(by_event)
    tasks = tuple(
        _task(event, names[event], runs, reference, alpha, tolerance) for event, runs in by_event.items()
    )
    return Summary(tasks, standings(tasks), reference, alpha, tolerance)


def _task(
    event: Event, name: str, records: list[RunRecord], reference: str, alpha: float, tolerance: float
) -> TaskSummary:
    version = records[-1].task_version
    kept: dict[tuple, RunRecord] = {}
    steps_of: dict[str, int] = {}
    for phase in ("sweep", "tune", "final"):
        runs = [r for r in records if r.phase == phase and r.task_version == version]
        if runs:
            steps_of[phase] = max(Counter(r.steps for r in runs).items(), key=lambda item: item[::-1])[0]
        for run in runs:
            if run.steps == steps_of[phase]:
                kept[run.optimizer, phase, setting_of(run), run.seed] = run
    usable = list(kept.values())
    ignored = sum(r.task_version != version or r.steps != steps_of.get(r.phase) for r in records)
    by_optimizer: dict[str, list[RunRecord]] = {}
    for run in usable:
        by_optimizer.setdefault(run.optimizer, []).append(run)

    optimizers = _ranked([_optimizer(opt, runs, tolerance) for opt, runs in by_optimizer.items()])
    target_row = next((o for o in optimizers if o.name == reference and o.loss), None)
    steps = steps_of.get("final", steps_of.get("sweep", 0))
    fwd_bwd_ms = _median(o.fwd_bwd_ms for o in optimizers)
    if target_row is not None:
        optimizers = [_against(o, target_row, steps, fwd_bwd_ms) for o in optimizers]
    return TaskSummary(
        name=name,
        version=str(version),
        steps=steps,
        sweep_steps=steps_of.get("sweep", 0),
        seeds=tuple(sorted({r.seed for r in usable if r.phase == "final"})),
        sweep_seeds=tuple(sorted({r.seed for r in usable if r.phase == "sweep"})),
        param_count=max((r.param_count or 0 for r in usable), default=0),
        fwd_bwd_ms=fwd_bwd_ms,
        target=target_row.loss.mean if target_row and target_row.loss else None,
        optimizers=tuple(optimizers),
        pairs=pairs(optimizers, alpha),
        problems=tuple(
            Problem(r.optimizer, r.phase, r.lr, r.seed, status_of(r), reason(r))
            for r in usable
            if status_of(r) != "ok"
        ),
        ignored=ignored,
        event=event,
        headline=_headline(records),
        claims=tuple(judge(claim, optimizers) for claim in claims_of(records)),
    )


def _optimizer(name: str, runs: list[RunRecord], tolerance: float) -> OptimizerSummary:
    sweep = sweep_points([r for r in runs if r.phase == "sweep"])
    all_finals = [r for r in runs if r.phase == "final"]
    trials = [r for r in runs if r.phase in ("sweep", "tune")]
    best, note = choose(trials, all_finals)
    finals = [r for r in all_finals if setting_of(r) == best]
    ok = sorted((r for r in finals if status_of(r) == "ok"), key=lambda r: r.seed)
    tuned = [r for r in trials if setting_of(r) == best and status_of(r) == "ok"]
    shown = ok or tuned
    names = dict.fromkeys(key for r in ok for key in r.metrics if key != "val_loss")
    metrics = {key: estimate([r.metrics[key] for r in ok if _finite(r.metrics.get(key))]) for key in names}
    lrs = [point.lr for point in sweep]
    edge = None
    if best and len(lrs) > 1 and best.lr in (lrs[0], lrs[-1]):
        edge = "low" if best.lr == lrs[0] else "high"
    measured = [r for r in shown if r.param_count]
    return OptimizerSummary(
        name=name,
        target=runs[-1].target,
        rank=None,
        best_lr=best.lr if best else None,
        best_aux_lr=best.aux_lr if best else None,
        best_at_edge=edge,
        best_arguments=dict(shown[-1].kwargs) if shown else {},
        trials=sum(r.phase == "tune" for r in runs),
        sweep=sweep,
        tunability=tunability(sweep, tolerance) if len(sweep) > 1 else None,
        loss=estimate([r.final_loss for r in ok]),
        seed_losses=tuple((r.seed, r.final_loss) for r in ok),
        diverged_seeds=tuple(sorted(r.seed for r in finals if status_of(r) == "diverged")),
        failed_seeds=tuple(sorted(r.seed for r in finals if status_of(r) == "failed")),
        metrics={key: value for key, value in metrics.items() if value is not None},
        values=_values(ok),
        train=mean_curve(r.train_curve for r in shown),
        validation=mean_curve(to_the_end(r) for r in shown),
        curves_from="final" if ok else "sweep",
        steps_to_target=None,
        seconds_to_target=None,
        budget=None,
        time_budget=None,
        reference_steps=None,
        step_ms=_median(r.step_ms for r in shown),
        fwd_bwd_ms=_median(r.fwd_bwd_ms for r in shown),
        state_bytes_per_param=measured[-1].state_bytes / measured[-1].param_count if measured else None,
        peak_memory_bytes=_median(r.peak_memory_bytes for r in shown),
        twin=mean_curve(r.twin_curve for r in shown),
        runs=len(runs),
        diverged=sum(status_of(r) == "diverged" for r in runs),
        failed=sum(status_of(r) == "failed" for r in runs),
        note=note,
    )


def _values(finals: Sequence[RunRecord]) -> dict[str, dict[int, float]]:
    """Every metric of the final runs by seed; a twin that diverged is infinitely far, which is a result."""
    found: dict[str, dict[int, float]] = {"val_loss": {r.seed: r.final_loss for r in finals}}
    for run in finals:
        measured = dict(run.metrics)
        if run.train_curve:
            measured.setdefault("train_loss", run.train_curve[-1][1])
        for name, value in measured.items():
            if name == DEVIATION or (name != "val_loss" and _finite(value)):
                found.setdefault(name, {})[run.seed] = value
    return found


def _headline(records: Sequence[RunRecord]) -> str:
    """The metric to show first: what the task calls its headline, if the records tell."""
    told = [str(r.settings["headline"]) for r in records if r.settings.get("headline")]
    return told[-1] if told else "val_loss"


def _ranked(optimizers: list[OptimizerSummary]) -> list[OptimizerSummary]:
    def order(o: OptimizerSummary) -> tuple[int, float]:
        if o.loss is not None:
            return (1 if o.diverged_seeds else 0, o.loss.mean)
        return (3 if o.diverged_everywhere else 2, min(map(sweep_order, o.sweep), default=math.inf))

    keys = [order(o) for o in optimizers]
    ranked = [
        replace(o, rank=1 + sum(other < key for other in keys)) if o.loss is not None else o
        for o, key in zip(optimizers, keys, strict=True)
    ]
    return sorted(ranked, key=order)


def _against(
    o: OptimizerSummary, ref: OptimizerSummary, steps: int, fwd_bwd_ms: float | None
) -> OptimizerSummary:
    """Fill in what is measured against the tuned reference's final loss."""
    if ref.loss is None or o.loss is None:
        return o
    reached = o.validation and first_crossing(o.validation.steps, o.validation.mean, ref.loss.mean)
    back = ref.validation and first_crossing(ref.validation.steps, ref.validation.mean, o.loss.mean)
    own, theirs = _step_seconds(o, fwd_bwd_ms), _step_seconds(ref, fwd_bwd_ms)
    seconds = None if reached is None or own is None else reached * own
    return replace(
        o,
        steps_to_target=reached,
        seconds_to_target=seconds,
        budget=reached / steps if reached is not None and steps else None,
        time_budget=seconds / (steps * theirs) if seconds is not None and theirs and steps else None,
        reference_steps=back,
    )


def standings(tasks: Sequence[TaskSummary]) -> tuple[OverallRow, ...]:
    """Ranks across tasks, best mean rank first; an optimizer is counted on the tasks it was run on."""
    names = dict.fromkeys(o.name for task in tasks for o in task.optimizers)
    rows: list[OverallRow] = []
    for name in names:
        ranks: dict[str, int | None] = {}
        counted: list[int] = []
        wins = losses = 0
        for task in tasks:
            own = next((o for o in task.optimizers if o.name == name), None)
            if own is None:
                continue
            ranks[task.name] = own.rank
            counted.append(len(task.optimizers) if own.rank is None else own.rank)
            for pair in task.pairs:
                if name in (pair.a, pair.b) and pair.better is not None:
                    wins += pair.better == name
                    losses += pair.better != name
        rows.append(OverallRow(name, fmean(counted), ranks, wins, losses))
    return tuple(sorted(rows, key=lambda row: row.mean_rank))


def _step_seconds(o: OptimizerSummary, fwd_bwd_ms: float | None) -> float | None:
    return None if o.step_ms is None or fwd_bwd_ms is None else (o.step_ms + fwd_bwd_ms) / 1000


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _median(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None and math.isfinite(v)]
    return median(known) if known else None
