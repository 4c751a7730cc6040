"""Verdicts on claims, against intervals worked out by hand.

With three seeds t(0.975, 2) = 4.30265, so the half-width is 2.48414 standard deviations of the differences.
"""

import pytest
from race_records import finals, only, run, sweep

from steepest.race.paper import Claim
from steepest.race.records import RunRecord
from steepest.race.statistics import HOLDS, REFUTED, UNDECIDED, ClaimResult, verdict_of

# Differences B - A: 0.2, 0.3, 0.4; mean 0.3, deviation 0.1, so the interval is 0.3 -+ 0.248414.
A = [1.0, 1.1, 1.2]
B = [1.2, 1.4, 1.6]
LOW, HIGH = 0.3 - 0.248414, 0.3 + 0.248414


def claim(left: str, relation: str, right: str | float, **options) -> Claim:
    return Claim("a paper, table 1", "what it says", left, relation, right, **options)


def judged(records: list[RunRecord], *claims: Claim) -> tuple[ClaimResult, ...]:
    stated = {"claims": [c.to_dict() for c in claims]}
    return only([*records[:-1], _with(records[-1], settings=stated)]).claims


def _with(record: RunRecord, **changes) -> RunRecord:
    return RunRecord(**{**record.__dict__, **changes})


def verdicts(records: list[RunRecord], *claims: Claim) -> list[str]:
    return [result.verdict for result in judged(records, *claims)]


def test_the_interval_is_of_the_paired_differences():
    (result,) = judged([*finals("X", A), *finals("Y", B)], claim("X", "better", "Y"))
    assert result.advantage is not None
    assert result.advantage.mean == pytest.approx(0.3)
    assert (result.advantage.low, result.advantage.high) == pytest.approx((LOW, HIGH), abs=1e-5)
    assert result.left is not None
    assert result.right is not None
    assert (result.left.mean, result.right.mean) == pytest.approx((1.1, 1.4))
    assert result.seeds == (1, 2, 3)
    assert result.verdict == HOLDS
    assert result.reason == "paired over seeds 1, 2, 3"


@pytest.mark.parametrize(
    ("relation", "margin", "forwards", "backwards"),
    [
        # Forwards the advantage is [0.0516, 0.5484], backwards [-0.5484, -0.0516].
        ("better", 0.0, HOLDS, REFUTED),
        ("better", 0.05, HOLDS, REFUTED),
        ("better", 0.06, UNDECIDED, REFUTED),
        ("better", 0.6, REFUTED, REFUTED),
        ("no worse", 0.0, HOLDS, REFUTED),
        ("no worse", 0.05, HOLDS, REFUTED),
        ("no worse", 0.06, HOLDS, UNDECIDED),
        ("no worse", 0.54, HOLDS, UNDECIDED),
        ("no worse", 0.55, HOLDS, HOLDS),
        ("equal", 0.0, REFUTED, REFUTED),
        ("equal", 0.05, REFUTED, REFUTED),
        ("equal", 0.06, UNDECIDED, UNDECIDED),
        ("equal", 0.54, UNDECIDED, UNDECIDED),
        ("equal", 0.55, HOLDS, HOLDS),
    ],
)
def test_the_rule_by_hand(relation: str, margin: float, forwards: str, backwards: str):
    records = [*finals("X", A), *finals("Y", B)]
    both = [claim("X", relation, "Y", margin=margin), claim("Y", relation, "X", margin=margin)]
    assert verdicts(records, *both) == [forwards, backwards]


def test_an_interval_across_zero_decides_nothing_but_equality():
    records = [*finals("X", [1.0, 1.1, 1.2]), *finals("Y", [1.1, 1.1, 1.1])]  # 0.1, 0.0, -0.1
    relations = [claim("X", relation, "Y", margin=0.25) for relation in ("better", "no worse", "equal")]
    assert verdicts(records, *relations) == [REFUTED, HOLDS, HOLDS]
    relations = [claim("X", relation, "Y", margin=0.2) for relation in ("better", "no worse", "equal")]
    assert verdicts(records, *relations) == [UNDECIDED] * 3


def test_higher_accuracies_are_better():
    records = [*finals("X", A), *finals("Y", B)]  # accuracies 1 - loss / 10: X is 0.02, 0.03, 0.04 higher
    up = claim("X", "better", "Y", metric="val_accuracy")
    (result,) = judged(records, up)
    assert result.advantage is not None
    assert result.advantage.mean == pytest.approx(0.03)
    assert result.verdict == HOLDS
    assert verdicts(records, claim("Y", "better", "X", metric="val_accuracy")) == [REFUTED]


def test_against_a_number():
    records = finals("X", [1.0, 1.1, 1.2])  # mean 1.1 -+ 0.248414
    found = verdicts(
        records,
        claim("X", "better", 1.4),
        claim("X", "better", 1.3),
        claim("X", "better", 0.8),
        claim("X", "equal", 1.0, margin=0.4),
        claim("X", "no worse", 1.0, margin=0.349),
    )
    assert found == [HOLDS, UNDECIDED, REFUTED, HOLDS, HOLDS]
    (result,) = judged(records, claim("X", "better", 1.4))
    assert result.right is not None
    assert (result.right.mean, result.right.low) == (1.4, None)
    assert result.reason == "seeds 1, 2, 3"


def test_the_last_training_loss_can_be_claimed():
    records = [*finals("X", A), *finals("Y", B)]
    assert verdicts(records, claim("X", "better", "Y", metric="train_loss")) == [HOLDS]


def test_what_was_not_measured_is_undecided_and_says_why():
    records = [*finals("X", A), *finals("Y", B[:1])]
    results = judged(
        records,
        claim("X", "better", "Z"),
        claim("W", "better", "Z"),
        claim("X", "better", "Y", metric="matthews"),
        claim("X", "better", "Y"),
    )
    assert {r.verdict for r in results} == {UNDECIDED}
    assert [r.reason for r in results] == [
        "Z not run",
        "W and Z not run",
        "no matthews of X and Y",
        "seed 1 alone: no interval",
    ]
    lone = [*finals("X", A[:1]), run("Y", "final", 0.1, 7, 1.0)]
    assert [r.reason for r in judged(lone, claim("X", "better", "Y"))] == ["no seed in common"]


def test_divergence_throughout_decides():
    records = [*finals("X", A), *finals("Y", [None] * 3), *sweep("Z", {0.1: None, 1.0: None})]
    for loser in ("Y", "Z"):
        found = verdicts(
            records,
            claim("X", "better", loser),
            claim("X", "no worse", loser),
            claim("X", "equal", loser, margin=9.0),
            claim(loser, "better", "X"),
            claim(loser, "no worse", "X", margin=9.0),
            claim(loser, "better", 9.0),
        )
        assert found == [HOLDS, HOLDS, REFUTED, REFUTED, REFUTED, REFUTED]


def test_divergence_on_one_seed_takes_a_favourable_verdict_away():
    records = [*finals("X", [*A, None]), *finals("Y", [*B, 1.7])]
    results = judged(records, claim("X", "better", "Y"), claim("Y", "better", "X"))
    assert [r.verdict for r in results] == [UNDECIDED, UNDECIDED]
    assert {r.reason for r in results} == {"X also diverged on 1 of its seeds"}
    records = [*finals("X", [*A, 1.3]), *finals("Y", [*B, None])]
    assert verdicts(records, claim("X", "better", "Y")) == [HOLDS]
    assert verdicts(records, claim("X", "equal", "Y", margin=1.0)) == [UNDECIDED]


def test_claims_come_from_the_newest_record_that_has_any():
    old, new = claim("X", "better", "Y"), claim("X", "equal", "Y")
    records = finals("X", A)
    records[0] = _with(records[0], started="2026-01-02", settings={"claims": [new.to_dict(), new.to_dict()]})
    records[1] = _with(records[1], started="2026-01-01", settings={"claims": [old.to_dict()]})
    records[2] = _with(records[2], started="2026-01-03")
    assert [r.claim for r in only(records).claims] == [new]


def test_claims_that_cannot_be_read_are_left_out():
    good = claim("X", "better", 2.0).to_dict()
    broken = [{"text": "?"}, "text", good | {"relation": "faster"}, good | {"more": 1}, None]
    (record,) = finals("X", [1.0])
    (task,) = [only([_with(record, settings={"claims": [*broken, good]})])]
    assert [r.claim.relation for r in task.claims] == ["better"]


def test_an_unknown_relation_is_named():
    with pytest.raises(ValueError, match=r"relation must be .* got 'faster'"):
        verdict_of("faster", 0.0, 1.0)


def test_deviations_count_up_to_one():
    def deviating(name: str, values: list[float]) -> list[RunRecord]:
        return [_with(r, metrics={"deviation": v}) for r, v in zip(finals(name, A), values, strict=True)]

    records = [*deviating("X", [1e-12, 2e-12, 3e-12]), *deviating("Y", [1e3, 5.0, 1e9])]
    (wild, still) = judged(
        records,
        claim("X", "better", "Y", metric="deviation", margin=1e-6),
        claim("X", "equal", 0.0, metric="deviation", margin=1e-6),
    )
    assert (wild.verdict, still.verdict) == (HOLDS, HOLDS)
    assert wild.advantage is not None
    assert wild.advantage.mean == pytest.approx(1.0)
