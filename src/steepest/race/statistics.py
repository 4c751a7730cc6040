"""What a set of run records says: tuned losses, intervals, paired tests, speed and cost.

Everything here is a pure function of the records; nothing is read or written. The choices that matter:

Tuning criterion
    The validation loss at the end of a run (`final_loss`). The best lr is the one with the lowest mean over
    its tuning runs; an lr at which any tuning run diverged is not eligible.
Comparison
    Only the runs of phase "final" at that lr count. The run that won the sweep is not among them, so the
    minimum over the sweep does not flatter anyone.
Interval
    Student's t over seeds: mean +- t(0.975, n-1) s / sqrt(n). With three seeds t is 4.30; with one seed
    there is no interval.
Pair verdict
    Two-sided paired t-test on loss(A) - loss(B) over the seeds that both finished, corrected by Holm over
    all pairs tested on the task. "A better" or "B better" only if the corrected p is below `alpha`;
    otherwise "no detectable difference", which is not a claim that the two are equal. Fewer than two shared
    seeds: no test. Three seeds leave two degrees of freedom: alone, a difference must be 2.5 times the
    standard deviation of the paired differences, as the clearest of 15 pairs 10 times.
Divergence
    A final run that diverged is a result, not a missing value: an optimizer with one ranks below all
    without, and is never called better than an optimizer that finished that seed. One that diverged at
    every lr, or in every final run, loses without a test to one that finished all of its final runs.
    A run that failed (raised an error) is a missing seed.
Tunability
    Decades of lr around the best over which the tuning loss stays within `tolerance` of the optimizer's own
    best (best + tolerance * |best|), on the line through (log10 lr, loss). Diverged neighbours end the
    region at the last lr that worked; a region that runs into the edge of the grid is a lower bound.
Target
    The tuned reference optimizer's mean final loss. Steps to it are read off the mean validation curve by
    linear interpolation, at the first crossing. Seconds are steps times the time of one training step: the
    optimizer's own median step, and for forward and backward, which are the same work for all, the median
    over all optimizers of the task, so that a busy moment of the machine is not counted against one of
    them. Evaluation and data loading are left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t as student_t

if TYPE_CHECKING:
    from steepest.race.records import RunRecord

A_BETTER = "A better"
B_BETTER = "B better"
NO_DIFFERENCE = "no detectable difference"


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds with its 95 % t-interval; `low` and `high` are None when `n` is 1."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def half_width(self) -> float | None:
        """Half the length of the interval, or None."""
        return None if self.high is None else self.high - self.mean


@dataclass(frozen=True)
class SweepPoint:
    """One learning rate of the tuning sweep; `loss` is None unless `status` is "ok"."""

    lr: float
    aux_lr: float | None
    loss: float | None
    status: str
    runs: int


@dataclass(frozen=True)
class Tunability:
    """The contiguous lr region near the best; `at_least` says that it runs into the edge of the grid."""

    low: float
    high: float
    at_least: bool

    @property
    def decades(self) -> float:
        """Width of the region in powers of ten."""
        return math.log10(self.high / self.low)


@dataclass(frozen=True)
class Curve:
    """A mean loss curve over seeds, with the lowest and highest seed at each step."""

    steps: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    seeds: int


@dataclass(frozen=True)
class Problem:
    """A run without a usable result, and the first line of its error."""

    optimizer: str
    phase: str
    lr: float
    seed: int
    status: str
    error: str


@dataclass(frozen=True)
class OptimizerSummary:
    """One optimizer on one task. Whatever could not be measured is None."""

    name: str
    target: str
    rank: int | None
    best_lr: float | None
    best_aux_lr: float | None
    best_at_edge: str | None
    sweep: tuple[SweepPoint, ...]
    tunability: Tunability | None
    loss: Estimate | None
    seed_losses: tuple[tuple[int, float], ...]
    diverged_seeds: tuple[int, ...]
    failed_seeds: tuple[int, ...]
    metrics: Mapping[str, Estimate]
    train: Curve | None
    validation: Curve | None
    curves_from: str
    steps_to_target: float | None
    seconds_to_target: float | None
    budget: float | None
    time_budget: float | None
    reference_steps: float | None
    step_ms: float | None
    fwd_bwd_ms: float | None
    state_bytes_per_param: float | None
    runs: int
    diverged: int
    failed: int
    note: str

    @property
    def diverged_everywhere(self) -> bool:
        """True if every tuning run, or every final run, diverged."""
        tuned = bool(self.sweep) and all(point.status == "diverged" for point in self.sweep)
        final = bool(self.diverged_seeds) and not self.seed_losses and not self.failed_seeds
        return tuned or final


@dataclass(frozen=True)
class PairResult:
    """The comparison of two optimizers.

    `difference` is loss(a) - loss(b); `detectable` is the smallest mean difference that the test could have
    called at Holm's first (strictest) threshold.
    """

    a: str
    b: str
    seeds: tuple[int, ...]
    difference: Estimate | None
    p: float | None
    p_holm: float | None
    detectable: float | None
    verdict: str
    reason: str

    @property
    def better(self) -> str | None:
        """The name of the better optimizer, or None."""
        return {A_BETTER: self.a, B_BETTER: self.b}.get(self.verdict)


@dataclass(frozen=True)
class TaskSummary:
    """All optimizers on one task, best first; `target` is the reference's mean final loss."""

    name: str
    version: str
    steps: int
    sweep_steps: int
    seeds: tuple[int, ...]
    sweep_seeds: tuple[int, ...]
    param_count: int
    fwd_bwd_ms: float | None
    target: float | None
    optimizers: tuple[OptimizerSummary, ...]
    pairs: tuple[PairResult, ...]
    problems: tuple[Problem, ...]
    ignored: int

    @property
    def tests(self) -> int:
        """How many pairs were tested, the size of the Holm family."""
        return sum(pair.p is not None for pair in self.pairs)

    def pair(self, a: str, b: str) -> PairResult:
        """Return the comparison of `a` with `b`, turned round if it is stored as (b, a)."""
        for pair in self.pairs:
            if (pair.a, pair.b) == (a, b):
                return pair
            if (pair.a, pair.b) == (b, a):
                return _turned(pair)
        raise KeyError(f"no pair of {a!r} and {b!r} on task {self.name!r}")


@dataclass(frozen=True)
class OverallRow:
    """One optimizer across tasks; where it has no ranked result it counts as last."""

    optimizer: str
    mean_rank: float
    ranks: Mapping[str, int | None]
    detected_wins: int
    detected_losses: int


@dataclass(frozen=True)
class Summary:
    """What `summarize` returns: one entry per task, and the standing across tasks."""

    tasks: tuple[TaskSummary, ...]
    overall: tuple[OverallRow, ...]
    reference: str
    alpha: float
    tolerance: float


def summarize(
    records: Iterable[RunRecord], *, reference: str = "AdamW", alpha: float = 0.05, tolerance: float = 0.10
) -> Summary:
    """Summarize run records; the rules are in the docstring of this module.

    Args:
        records: any mixture of tasks, optimizers and phases, complete or cut short. Of two records of the
            same run the later one counts. Runs of an older task version, or of another number of steps than
            most of their phase, are left out and counted in `TaskSummary.ignored`.
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
    by_task: dict[str, list[RunRecord]] = {}
    for record in records:
        by_task.setdefault(record.task, []).append(record)
    tasks = tuple(_task(name, runs, reference, alpha, tolerance) for name, runs in by_task.items())
    return Summary(tasks, _overall(tasks), reference, alpha, tolerance)


def estimate(values: Sequence[float]) -> Estimate | None:
    """Return the mean of `values` with its 95 % t-interval, or None if there are no values."""
    n = len(values)
    if n == 0:
        return None
    mean = fmean(values)
    if n == 1:
        return Estimate(mean, None, None, 1)
    half = float(student_t.ppf(0.975, n - 1)) * stdev(values) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half, n)


def paired_p(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Return the two-sided p of the paired t-test of `a` against `b`, or None with fewer than two pairs.

    Differences without spread give 1 if they are zero and 0 if they are not.
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    n = len(differences)
    if n < 2:
        return None
    mean, spread = fmean(differences), stdev(differences)
    rounding = 1e-12 * max(map(abs, (*a, *b)))
    if spread <= rounding:
        return 1.0 if abs(mean) <= rounding else 0.0
    return float(2 * student_t.sf(abs(mean) / (spread / math.sqrt(n)), n - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's step-down corrected p values, in the order given."""
    corrected = [0.0] * len(p_values)
    running = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = running
    return corrected


def detectable_ratio(seeds: int, tests: int, alpha: float = 0.05) -> float | None:
    """Return the smallest mean difference that can be called, in units of the paired differences' spread.

    In standard deviations it is t(1 - alpha / (2 tests), seeds - 1) / sqrt(seeds), the strictest of
    Holm's thresholds, or None with fewer than two seeds.
    """
    if seeds < 2 or tests < 1:
        return None
    return float(student_t.isf(alpha / (2 * tests), seeds - 1)) / math.sqrt(seeds)


def first_crossing(steps: Sequence[float], losses: Sequence[float], target: float) -> float | None:
    """Return the interpolated step at which a loss curve first comes down to `target`, or None."""
    reach = target + 1e-9 * abs(target)
    for i, loss in enumerate(losses):
        if loss <= reach:
            if i == 0 or losses[i - 1] == loss:
                return float(steps[i])
            share = (losses[i - 1] - target) / (losses[i - 1] - loss)
            return float(steps[i - 1] + min(1.0, share) * (steps[i] - steps[i - 1]))
    return None


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


def mean_curve(curves: Iterable[Sequence[Sequence[float]]]) -> Curve | None:
    """Average [[step, loss], ...] curves over the steps that all of them cover, interpolating where needed.

    A curve ends at its first non-finite loss; empty curves are left out.
    """
    usable: list[tuple[list[float], list[float]]] = []
    for curve in curves:
        steps: list[float] = []
        losses: list[float] = []
        for step, loss in sorted(curve, key=lambda point: point[0]):
            if loss is None or not math.isfinite(loss):
                break
            steps.append(float(step))
            losses.append(float(loss))
        if steps:
            usable.append((steps, losses))
    if not usable:
        return None
    start, end = max(steps[0] for steps, _ in usable), min(steps[-1] for steps, _ in usable)
    grid = sorted({step for steps, _ in usable for step in steps if start <= step <= end})
    if not grid:
        return None
    values = np.array([np.interp(grid, steps, losses) for steps, losses in usable])
    mean, low, high = values.mean(0), values.min(0), values.max(0)
    return Curve(tuple(grid), tuple(mean.tolist()), tuple(low.tolist()), tuple(high.tolist()), len(usable))


def _task(name: str, records: list[RunRecord], reference: str, alpha: float, tolerance: float) -> TaskSummary:
    version = records[-1].task_version
    kept: dict[tuple, RunRecord] = {}
    steps_of: dict[str, int] = {}
    for phase in ("sweep", "final"):
        runs = [r for r in records if r.phase == phase and r.task_version == version]
        if runs:
            steps_of[phase] = max(Counter(r.steps for r in runs).items(), key=lambda item: item[::-1])[0]
        for run in runs:
            if run.steps == steps_of[phase]:
                kept[run.optimizer, phase, run.lr, run.aux_lr, run.seed] = run
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
        pairs=_pairs(optimizers, alpha),
        problems=tuple(
            Problem(r.optimizer, r.phase, r.lr, r.seed, _status(r), _first_line(r.error))
            for r in usable
            if _status(r) != "ok"
        ),
        ignored=ignored,
    )


def _status(run: RunRecord) -> str:
    """A run that claims to be ok but has no finite loss counts as diverged."""
    if run.status == "ok" and (run.final_loss is None or not math.isfinite(run.final_loss)):
        return "diverged"
    return run.status


def _first_line(error: str | None) -> str:
    return next((line.strip() for line in (error or "").splitlines() if line.strip()), "")


def _optimizer(name: str, runs: list[RunRecord], tolerance: float) -> OptimizerSummary:
    sweep = _sweep([r for r in runs if r.phase == "sweep"])
    all_finals = [r for r in runs if r.phase == "final"]
    best, note = _choose(sweep, all_finals)
    finals = [r for r in all_finals if (r.lr, r.aux_lr) == best]
    ok = sorted((r for r in finals if _status(r) == "ok"), key=lambda r: r.seed)
    tuned = [r for r in runs if r.phase == "sweep" and (r.lr, r.aux_lr) == best and _status(r) == "ok"]
    shown = ok or tuned
    names = dict.fromkeys(key for r in ok for key in r.metrics if key != "val_loss")
    metrics = {key: estimate([r.metrics[key] for r in ok if _finite(r.metrics.get(key))]) for key in names}
    lrs = [point.lr for point in sweep]
    edge = None
    if best and len(lrs) > 1 and best[0] in (lrs[0], lrs[-1]):
        edge = "low" if best[0] == lrs[0] else "high"
    measured = [r for r in shown if r.param_count]
    return OptimizerSummary(
        name=name,
        target=runs[-1].target,
        rank=None,
        best_lr=best[0] if best else None,
        best_aux_lr=best[1] if best else None,
        best_at_edge=edge,
        sweep=sweep,
        tunability=tunability(sweep, tolerance) if len(sweep) > 1 else None,
        loss=estimate([r.final_loss for r in ok]),
        seed_losses=tuple((r.seed, r.final_loss) for r in ok),
        diverged_seeds=tuple(sorted(r.seed for r in finals if _status(r) == "diverged")),
        failed_seeds=tuple(sorted(r.seed for r in finals if _status(r) == "failed")),
        metrics={key: value for key, value in metrics.items() if value is not None},
        train=mean_curve(r.train_curve for r in shown),
        validation=mean_curve(_to_the_end(r) for r in shown),
        curves_from="final" if ok else "sweep",
        steps_to_target=None,
        seconds_to_target=None,
        budget=None,
        time_budget=None,
        reference_steps=None,
        step_ms=_median(r.step_ms for r in shown),
        fwd_bwd_ms=_median(r.fwd_bwd_ms for r in shown),
        state_bytes_per_param=measured[-1].state_bytes / measured[-1].param_count if measured else None,
        runs=len(runs),
        diverged=sum(_status(r) == "diverged" for r in runs),
        failed=sum(_status(r) == "failed" for r in runs),
        note=note,
    )


def _sweep(runs: list[RunRecord]) -> tuple[SweepPoint, ...]:
    """One point per lr, in order of lr; where several aux_lr were tried, the best of them."""
    settings: dict[tuple[float, float | None], list[RunRecord]] = {}
    for run in runs:
        settings.setdefault((run.lr, run.aux_lr), []).append(run)
    points: dict[float, SweepPoint] = {}
    for (lr, aux_lr), same in settings.items():
        states = {_status(r) for r in same}
        losses = [r.final_loss for r in same if _status(r) == "ok"]
        status = "diverged" if "diverged" in states else "ok" if losses else "failed"
        point = SweepPoint(lr, aux_lr, fmean(losses) if status == "ok" else None, status, len(same))
        if lr not in points or _sweep_order(point) < _sweep_order(points[lr]):
            points[lr] = point
    return tuple(points[lr] for lr in sorted(points))


def _sweep_order(point: SweepPoint) -> float:
    return math.inf if point.loss is None else point.loss


def _choose(
    sweep: Sequence[SweepPoint], finals: list[RunRecord]
) -> tuple[tuple[float, float | None] | None, str]:
    """The (lr, aux_lr) to compare at, and a note if it is not simply the best of the sweep."""
    tried = Counter((r.lr, r.aux_lr) for r in finals)
    usable = [point for point in sweep if point.loss is not None]
    if usable:
        lowest = min(_sweep_order(point) for point in usable)
        tied = [(p.lr, p.aux_lr) for p in usable if p.loss == lowest]
        best = max(tied, key=lambda setting: tried[setting])
        if tried[best] or not tried:
            return best, "" if tried else "tuned, but no final run yet"
        run = max(tried, key=lambda setting: tried[setting])
        return run, f"final runs exist only at lr {run[0]:.3g}; the sweep's best lr is {best[0]:.3g}"
    if tried:
        return max(tried, key=lambda setting: tried[setting]), "" if sweep else "lr given, not swept"
    if all(point.status == "diverged" for point in sweep):
        return None, "diverged at every lr tried"
    return None, "no lr gave a result"


def _to_the_end(run: RunRecord) -> Sequence[Sequence[float]]:
    """The validation curve including the final loss, for races that evaluate at the end separately."""
    curve = list(run.val_curve)
    if not curve or curve[-1][0] < run.steps:
        curve.append((run.steps, run.final_loss))
    return curve


def _finite(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _median(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None and math.isfinite(v)]
    return median(known) if known else None


def _ranked(optimizers: list[OptimizerSummary]) -> list[OptimizerSummary]:
    def order(o: OptimizerSummary) -> tuple[int, float]:
        if o.loss is not None:
            return (1 if o.diverged_seeds else 0, o.loss.mean)
        return (3 if o.diverged_everywhere else 2, min(map(_sweep_order, o.sweep), default=math.inf))

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


def _step_seconds(o: OptimizerSummary, fwd_bwd_ms: float | None) -> float | None:
    return None if o.step_ms is None or fwd_bwd_ms is None else (o.step_ms + fwd_bwd_ms) / 1000


def _pairs(optimizers: Sequence[OptimizerSummary], alpha: float) -> tuple[PairResult, ...]:
    drafts = [_compare(a, b) for a, b in combinations(optimizers, 2)]
    tested = [pair for pair in drafts if pair.p is not None]
    corrected = dict(
        zip(map(id, tested), holm([pair.p for pair in tested if pair.p is not None]), strict=True)
    )
    states = {o.name: o for o in optimizers}
    return tuple(
        _decide(pair, corrected[id(pair)], len(tested), states, alpha) if id(pair) in corrected else pair
        for pair in drafts
    )


def _compare(a: OptimizerSummary, b: OptimizerSummary) -> PairResult:
    losses_a, losses_b = dict(a.seed_losses), dict(b.seed_losses)
    seeds = tuple(sorted(losses_a.keys() & losses_b.keys()))
    xs, ys = [losses_a[s] for s in seeds], [losses_b[s] for s in seeds]
    difference = estimate([x - y for x, y in zip(xs, ys, strict=True)])
    p = paired_p(xs, ys)
    verdict, reason = NO_DIFFERENCE, ""
    if a.diverged_everywhere and b.seed_losses and not b.diverged_seeds:
        verdict, reason = B_BETTER, f"{a.name} diverged throughout; {b.name} did not"
    elif b.diverged_everywhere and a.seed_losses and not a.diverged_seeds:
        verdict, reason = A_BETTER, f"{b.name} diverged throughout; {a.name} did not"
    elif p is None:
        shared = "one shared seed" if seeds else "no shared seed"
        reason = f"{shared}: no test possible"
    return PairResult(a.name, b.name, seeds, difference, p, None, None, verdict, reason)


def _decide(
    pair: PairResult, p_holm: float, tests: int, states: Mapping[str, OptimizerSummary], alpha: float
) -> PairResult:
    losses_a, losses_b = (dict(states[name].seed_losses) for name in (pair.a, pair.b))
    differences = [losses_a[seed] - losses_b[seed] for seed in pair.seeds]
    ratio = detectable_ratio(len(pair.seeds), tests, alpha)
    detectable = None if ratio is None else ratio * stdev(differences)
    pair = replace(pair, p_holm=p_holm, detectable=detectable)
    if p_holm >= alpha:
        return replace(pair, reason=f"corrected p is not below {alpha:g}")
    verdict = A_BETTER if fmean(differences) < 0 else B_BETTER
    winner, loser = (pair.a, pair.b) if verdict == A_BETTER else (pair.b, pair.a)
    finished = {seed for seed, _ in states[loser].seed_losses}
    if finished & set(states[winner].diverged_seeds):
        return replace(pair, reason=f"{winner} is lower where it finished, but it diverged on other seeds")
    return replace(pair, verdict=verdict, reason=f"corrected p is below {alpha:g}")


def _turned(pair: PairResult) -> PairResult:
    d = pair.difference
    if d is not None:
        low, high = (None, None) if d.low is None or d.high is None else (-d.high, -d.low)
        d = Estimate(-d.mean, low, high, d.n)
    verdict = {A_BETTER: B_BETTER, B_BETTER: A_BETTER}.get(pair.verdict, pair.verdict)
    return replace(pair, a=pair.b, b=pair.a, difference=d, verdict=verdict)


def _overall(tasks: Sequence[TaskSummary]) -> tuple[OverallRow, ...]:
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


def format_number(value: float | None, digits: int = 3) -> str:
    """Format to `digits` significant digits, without exponents where a person would write none."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "∞" if value > 0 else "nan"
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if -5 <= power < 6:
        return f"{value:.{max(0, digits - 1 - power)}f}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def format_lr(lr: float | None) -> str:
    """Format a learning rate: up to three significant digits, no trailing zeros."""
    if lr is None:
        return "–"
    text = f"{lr:.3g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        return f"{mantissa}e{int(exponent)}"
    return text


def decimals(value: Estimate | None) -> int | None:
    """Return how many decimals show two significant digits of the half-width, or None without one."""
    half = value.half_width if value else None
    if half is None or not math.isfinite(half) or half < 1e-7:
        return None
    return max(0, 1 - math.floor(math.log10(float(f"{half:.1e}"))))


def format_estimate(value: Estimate | None, places: int | None = None) -> str:
    """Format mean ± half-width with `places` decimals; by default the half-width gets two digits."""
    if value is None:
        return "–"
    own = decimals(value)
    places = own if places is None else places
    if places is None:
        return format_number(value.mean, 4)
    if own is None or value.half_width is None:
        return f"{value.mean:.{places}f}"
    return f"{value.mean:.{places}f} ± {value.half_width:.{places}f}"


TABLE_COLUMNS = (
    "task",
    "rank",
    "optimizer",
    "val loss",
    "metric",
    "best lr",
    "good lr range",
    "to target",
    "step ms",
    "state B/param",
    "vs reference",
    "diverged",
    "failed",
)


def table_rows(summary: Summary) -> list[dict[str, str]]:
    """Return one row of text per task and optimizer, best first, with the keys `TABLE_COLUMNS`."""
    rows: list[dict[str, str]] = []
    for task in summary.tasks:
        for o in task.optimizers:
            metric = next(iter(o.metrics.items()), None)
            cells = (
                task.name,
                "–" if o.rank is None else str(o.rank),
                o.name,
                format_estimate(o.loss) if o.loss else (o.note or "no final result"),
                f"{metric[0].removeprefix('val_')} {format_number(metric[1].mean)}" if metric else "–",
                format_lr(o.best_lr) + (" (edge)" if o.best_at_edge else ""),
                format_decades(o.tunability),
                format_target(task, o, summary.reference),
                format_number(o.step_ms),
                format_number(o.state_bytes_per_param),
                format_against(task, o, summary.reference),
                str(o.diverged),
                str(o.failed),
            )
            rows.append(dict(zip(TABLE_COLUMNS, cells, strict=True)))
    return rows


def format_decades(region: Tunability | None) -> str:
    """Format the width of the good lr region."""
    if region is None:
        return "–"
    width = "< 0.1" if region.decades < 0.05 else f"{region.decades:.1f}"
    return f"{'≥ ' if region.at_least and region.decades >= 0.05 else ''}{width} decades"


def format_target(task: TaskSummary, o: OptimizerSummary, reference: str) -> str:
    """Format the steps to the reference's final loss, as a share of its budget."""
    if task.target is None or o.loss is None:
        return "–"
    if o.name == reference:
        return "sets the target"
    if o.steps_to_target is None:
        return "not reached"
    share = "" if o.budget is None else f" ({100 * o.budget:.0f} %)"
    return f"{o.steps_to_target:.0f} steps{share}"


def format_against(task: TaskSummary, o: OptimizerSummary, reference: str) -> str:
    """Format the verdict of `o` against the reference: "better", "worse", "no detectable difference"."""
    if o.name == reference or not any(other.name == reference for other in task.optimizers):
        return "–"
    pair = task.pair(o.name, reference)
    if pair.verdict == NO_DIFFERENCE and pair.p is None:
        return "not testable"
    return {A_BETTER: "better", B_BETTER: "worse"}.get(pair.verdict, pair.verdict)
