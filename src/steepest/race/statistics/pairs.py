"""Which of two optimizers is better, for every pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from statistics import fmean, stdev

from steepest.race.statistics.inference import detectable_ratio, estimate, holm, paired_p
from steepest.race.statistics.results import A_BETTER, B_BETTER, NO_DIFFERENCE, OptimizerSummary, PairResult


def pairs(optimizers: Sequence[OptimizerSummary], alpha: float) -> tuple[PairResult, ...]:
    """Compare every two optimizers, corrected for how many tests that makes."""
    return tested(list(combinations(optimizers, 2)), alpha)


def tested(
    couples: Sequence[tuple[OptimizerSummary, OptimizerSummary]], alpha: float
) -> tuple[PairResult, ...]:
    """Compare the two of each couple; Holm's correction is over all that can be tested."""
    drafts = [_compare(a, b) for a, b in couples]
    p_values = [pair.p for pair in drafts if pair.p is not None]
    corrected = iter(holm(p_values))
    return tuple(
        pair if pair.p is None else _decide(pair, next(corrected), len(p_values), couple, alpha)
        for pair, couple in zip(drafts, couples, strict=True)
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
    pair: PairResult,
    p_holm: float,
    tests: int,
    couple: tuple[OptimizerSummary, OptimizerSummary],
    alpha: float,
) -> PairResult:
    losses_a, losses_b = (dict(o.seed_losses) for o in couple)
    differences = [losses_a[seed] - losses_b[seed] for seed in pair.seeds]
    ratio = detectable_ratio(len(pair.seeds), tests, alpha)
    detectable = None if ratio is None else ratio * stdev(differences)
    pair = replace(pair, p_holm=p_holm, detectable=detectable)
    if p_holm >= alpha:
        return replace(pair, reason=f"corrected p is not below {alpha:g}")
    verdict = A_BETTER if fmean(differences) < 0 else B_BETTER
    winner, loser = couple if verdict == A_BETTER else couple[::-1]
    finished = {seed for seed, _ in loser.seed_losses}
    if finished & set(winner.diverged_seeds):
        return replace(
            pair, reason=f"{winner.name} is lower where it finished, but it diverged on other seeds"
        )
    return replace(pair, verdict=verdict, reason=f"corrected p is below {alpha:g}")
