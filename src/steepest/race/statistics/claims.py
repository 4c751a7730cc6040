"""What a paper says, what was measured, and whether the one bears out the other.

A claim compares one metric of two optimizers, or of one optimizer with a number. Over the seeds s that both
finished at their best learning rate, the *advantage* of the left side is

    a_s = right_s - left_s    where lower is better (losses, the deviation between coordinates)
    a_s = left_s - right_s    where higher is better (accuracy, Matthews correlation),

[low, high] is the 95 % t-interval of its mean (two-sided; `inference.estimate`), and m >= 0 is the claim's
margin: the difference, in the metric's unit, up to which two results count as equal.

========== ======================= ============================== ==========
relation   holds                   does not hold                  undecided
========== ======================= ============================== ==========
better     low > m                 high < m                       otherwise
no worse   low >= -m               high < -m                      otherwise
equal      -m <= low, high <= m    low > m or high < -m           otherwise
========== ======================= ============================== ==========

"Undecided" says that these seeds cannot tell, not that the claim is half true. With one shared seed there is
no interval and nothing is decided. The claims were fixed before the race, so each is judged by itself,
without a correction for their number: a decided verdict is wrong by chance in at most one of twenty cases.

Deviations between coordinates count up to 1, where two paths differ by as much as the loss itself: beyond
that they say nothing more, and their spread over powers of ten would widen every interval.

A run that diverged is a result. If one side diverged in all final runs (or at every learning rate tried) and
the other side finished all of its own, the side that finished is better, whatever the margin. If a side
diverged on some seeds that the other finished, no verdict in its favour is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from steepest.race.paper import Claim, higher_is_better
from steepest.race.records import RaceError
from steepest.race.statistics.inference import estimate
from steepest.race.statistics.results import ClaimResult, Estimate, OptimizerSummary

if TYPE_CHECKING:
    from steepest.race.records import RunRecord

HOLDS = "holds"
REFUTED = "does not hold"
UNDECIDED = "undecided"
DEVIATION = "deviation"
WHOLLY_DIFFERENT = 1.0


def verdict_of(relation: str, low: float, high: float, margin: float = 0.0) -> str:
    """Return the verdict on a claim whose advantage has the 95 % interval [`low`, `high`].

    Example:
        >>> verdict_of("better", 0.02, 0.08), verdict_of("better", -0.01, 0.08)
        ('holds', 'undecided')

    Raises:
        ValueError: `relation` is none of "better", "no worse", "equal".
    """
    if relation == "better":
        holds, refuted = low > margin, high < margin
    elif relation == "no worse":
        holds, refuted = low >= -margin, high < -margin
    elif relation == "equal":
        holds, refuted = -margin <= low and high <= margin, low > margin or high < -margin
    else:
        raise ValueError(f"relation must be 'better', 'no worse' or 'equal', got {relation!r}")
    return HOLDS if holds else REFUTED if refuted else UNDECIDED


def claims_of(records: Iterable[RunRecord]) -> tuple[Claim, ...]:
    """Return the claims that the newest record with any carries in ``settings["claims"]``.

    What this version cannot read is left out.
    """
    stating = [r for r in records if r.settings.get("claims")]
    if not stating:
        return ()
    newest = max(stating, key=lambda r: r.started)
    claims = (_read(raw) for raw in newest.settings["claims"])
    return tuple(dict.fromkeys(claim for claim in claims if claim is not None))


def judge(claim: Claim, optimizers: Sequence[OptimizerSummary]) -> ClaimResult:
    """Judge a claim on one task's optimizers; the rule is in the module's docstring."""
    known = {o.name: o for o in optimizers}
    left, right = known.get(claim.left), known.get(claim.right) if isinstance(claim.right, str) else None
    missing = [s for s in (claim.left, claim.right) if isinstance(s, str) and s not in known]
    if left is None or missing:
        return _unmeasured(claim, f"{' and '.join(missing)} not run")
    by_divergence = _divergence(claim.relation, left, right)
    xs = _values(left, claim.metric)
    ys = _values(right, claim.metric) if right else dict.fromkeys(xs, float(claim.right))
    seeds = tuple(sorted(xs.keys() & ys.keys()))
    if by_divergence is not None:
        verdict, reason = by_divergence
        return ClaimResult(claim, _mean(xs, xs), _mean(ys, ys), None, seeds, verdict, reason)
    if not seeds:
        silent = [o.name for o in (left, right) if o and not o.values.get(claim.metric)]
        told = f"no {claim.metric} of {' and '.join(silent)}" if silent else "no seed in common"
        return _unmeasured(claim, told)
    sign = 1 if higher_is_better(claim.metric) else -1
    advantage = estimate([sign * (xs[s] - ys[s]) for s in seeds])
    sides = (_mean(xs, seeds), _mean(ys, seeds) if right else Estimate(float(claim.right), None, None, 1))
    if advantage is None or advantage.low is None or advantage.high is None:
        return ClaimResult(claim, *sides, advantage, seeds, UNDECIDED, f"seed {seeds[0]} alone: no interval")
    verdict = verdict_of(claim.relation, advantage.low, advantage.high, claim.margin)
    reason = f"{'paired over seeds' if right else 'seeds'} {', '.join(map(str, seeds))}"
    for side, other, favoured in ((left, right, HOLDS), (right, left, REFUTED)):
        lost = _lost_alone(side, other) if side else 0
        if side and lost and verdict == (HOLDS if claim.relation == "equal" else favoured):
            verdict, reason = UNDECIDED, f"{side.name} also diverged on {lost} of its seeds"
    return ClaimResult(claim, *sides, advantage, seeds, verdict, reason)


def _values(o: OptimizerSummary, metric: str) -> dict[int, float]:
    limit = WHOLLY_DIFFERENT if metric == DEVIATION else math.inf
    return {seed: min(value, limit) for seed, value in o.values.get(metric, {}).items()}


def _divergence(
    relation: str, left: OptimizerSummary, right: OptimizerSummary | None
) -> tuple[str, str] | None:
    """The verdict if divergence settles it: one side diverged throughout, the other never."""
    if left.diverged_everywhere and (right is None or _clean(right)):
        return REFUTED, f"{left.name} diverged throughout"
    if right is not None and right.diverged_everywhere and _clean(left):
        return REFUTED if relation == "equal" else HOLDS, f"{right.name} diverged throughout"
    return None


def _clean(o: OptimizerSummary) -> bool:
    return bool(o.seed_losses) and not o.diverged_seeds


def _lost_alone(side: OptimizerSummary, other: OptimizerSummary | None) -> int:
    """How many final seeds a side diverged on although the other one (if any) finished them."""
    finished = set(side.diverged_seeds) if other is None else {seed for seed, _ in other.seed_losses}
    return len(finished & set(side.diverged_seeds))


def _mean(values: Mapping[int, float], seeds: Iterable[int]) -> Estimate | None:
    return estimate([values[seed] for seed in seeds])


def _unmeasured(claim: Claim, reason: str) -> ClaimResult:
    return ClaimResult(claim, None, None, None, (), UNDECIDED, reason)


def _read(raw: object) -> Claim | None:
    if not isinstance(raw, Mapping):
        return None
    try:
        return Claim(**{str(key): value for key, value in raw.items()})
    except (TypeError, RaceError):
        return None
