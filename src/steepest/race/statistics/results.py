"""What a summary holds: plain values, computed elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from steepest.race.paper import Claim
from steepest.race.statistics.events import Event

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
    """One optimizer on one task. Whatever could not be measured is None.

    ``values`` holds every metric of the final runs by seed, ``"val_loss"`` among them, and ``"train_loss"``,
    the last point of the training curve. ``best_arguments`` are those beside the learning rates at which it
    is compared, found in ``trials`` runs of the search's second stage if there was one.
    """

    name: str
    target: str
    rank: int | None
    best_lr: float | None
    best_aux_lr: float | None
    best_at_edge: str | None
    best_arguments: Mapping[str, Any]
    trials: int
    sweep: tuple[SweepPoint, ...]
    tunability: Tunability | None
    loss: Estimate | None
    seed_losses: tuple[tuple[int, float], ...]
    diverged_seeds: tuple[int, ...]
    failed_seeds: tuple[int, ...]
    metrics: Mapping[str, Estimate]
    values: Mapping[str, Mapping[int, float]]
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
    peak_memory_bytes: float | None
    twin: Curve | None
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

    def turned(self) -> PairResult:
        """The same comparison told the other way round."""
        d = self.difference
        if d is not None:
            low, high = (None, None) if d.low is None or d.high is None else (-d.high, -d.low)
            d = Estimate(-d.mean, low, high, d.n)
        verdict = {A_BETTER: B_BETTER, B_BETTER: A_BETTER}.get(self.verdict, self.verdict)
        return replace(self, a=self.b, b=self.a, difference=d, verdict=verdict)


@dataclass(frozen=True)
class ClaimResult:
    """A claim beside what was measured.

    ``left`` and ``right`` are the two sides over the shared seeds (``right`` has no interval where the claim
    names a number), ``advantage`` is how much better the left side was, in the metric's unit; all are None
    where nothing was measured. ``reason`` tells in a few words what the verdict rests on.
    """

    claim: Claim
    left: Estimate | None
    right: Estimate | None
    advantage: Estimate | None
    seeds: tuple[int, ...]
    verdict: str
    reason: str


@dataclass(frozen=True)
class TaskSummary:
    """All optimizers on one task, best first; `target` is the reference's mean final loss.

    ``name`` is unique in a summary: the task's, with preset, protocol and engine where they tell events
    apart. ``headline`` is the metric shown first beside the validation loss.
    """

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
    event: Event
    headline: str
    claims: tuple[ClaimResult, ...]

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
                return pair.turned()
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
