import math

import pytest
from race_records import finals, only, run

from steepest.race.statistics import loss_costs, performance_profiles, step_costs


def test_profile_by_hand():
    costs = [
        {"A": 1.0, "B": 2.0, "C": math.inf},
        {"A": 3.0, "B": 3.0, "C": 6.0},
        {"A": 8.0, "B": 2.0, "C": 3.0},
    ]
    profiles = {p.optimizer: p for p in performance_profiles(costs)}
    assert profiles["A"].ratios == (1.0, 1.0, 4.0)
    assert profiles["B"].ratios == (1.0, 1.0, 2.0)
    assert profiles["C"].ratios == (1.5, 2.0)
    assert [profiles["A"].share(tau) for tau in (0.99, 1.0, 3.99, 4.0)] == pytest.approx([0, 2 / 3, 2 / 3, 1])
    assert [profiles["C"].share(tau) for tau in (1.0, 1.5, 2.0, math.inf)] == pytest.approx(
        [0, 1 / 3, 2 / 3, 2 / 3]
    )


def test_best_first_by_the_mean_inverse_ratio():
    costs = [{"A": 2.0, "B": 1.0, "C": math.inf}, {"A": 1.0, "B": 4.0, "C": 1.0}]
    # A: (1/2 + 1) / 2, B: (1 + 1/4) / 2, C: (0 + 1) / 2
    assert [p.optimizer for p in performance_profiles(costs)] == ["A", "B", "C"]


def test_an_optimizer_counts_on_the_events_it_was_run_on():
    (b, a) = performance_profiles([{"A": 2.0, "B": 1.0}, {"A": 1.0}, {"A": 3.0}])
    assert (a.events, b.events) == (3, 1)
    assert (a.share(1.0), b.share(1.0)) == pytest.approx((2 / 3, 1.0))


@pytest.mark.parametrize("useless", [{}, {"A": math.inf}, {"A": 0.0, "B": 1.0}, {"A": -1.0}])
def test_events_without_ratios_are_left_out(useless: dict[str, float]):
    assert performance_profiles([useless]) == ()
    (a,) = performance_profiles([useless, {"A": 1.0}])
    assert a.events == 1


def test_costs_of_a_task():
    curves = {"X": ((0, 2.0), (50, 0.5), (100, 0.4)), "Y": ((0, 2.0), (100, 1.5))}
    records = finals("AdamW", [1.0, 1.0])
    records += [run(n, "final", 0.1, s, c[-1][1], val_curve=c) for n, c in curves.items() for s in (1, 2)]
    records += finals("Z", [0.9, None])
    task = only(records)
    assert loss_costs([task]) == [{"X": 0.4, "AdamW": 1.0, "Y": 1.5, "Z": math.inf}]
    # X comes down from 2 to 0.5 in 50 steps: it passes 1 after two thirds of them. Z: from 2 to 0.9 in 100.
    (steps,) = step_costs([task])
    assert steps == pytest.approx({"X": 100 / 3, "AdamW": 100.0, "Y": math.inf, "Z": 1000 / 11})
    assert step_costs([only(finals("X", [1.0]))]) == []
