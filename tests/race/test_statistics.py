import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from race_records import finals, only, run, sweep
from scipy import stats

from steepest.race.statistics import (
    A_BETTER,
    B_BETTER,
    NO_DIFFERENCE,
    TABLE_COLUMNS,
    SweepPoint,
    detectable_ratio,
    estimate,
    first_crossing,
    format_estimate,
    format_lr,
    format_number,
    holm,
    mean_curve,
    paired_p,
    summarize,
    table_rows,
    tunability,
)

# A paired experiment whose numbers are worked out by hand: differences -0.1, -0.2, -0.3.
A = [1.0, 1.1, 1.2]
B = [1.1, 1.3, 1.5]


def test_interval_is_students():
    value = estimate(A)
    assert value is not None
    assert value.mean == pytest.approx(1.1)
    # s = 0.1, t(0.975, 2) = 4.302653
    assert value.half_width == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)
    assert value.low == pytest.approx(value.mean - 0.2484138, rel=1e-6)


def test_interval_of_one_value_and_of_none():
    one = estimate([3.0])
    assert one is not None
    assert (one.mean, one.low, one.high, one.half_width, one.n) == (3.0, None, None, None, 1)
    assert estimate([]) is None


def test_paired_p_by_hand():
    # mean -0.2, s 0.1: t = -2 sqrt 3; for two degrees of freedom p = 1 - |t| / sqrt(t^2 + 2)
    t = 2 * math.sqrt(3)
    assert paired_p(A, B) == pytest.approx(1 - t / math.sqrt(t * t + 2), rel=1e-9)


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=2, max_size=8))
def test_paired_p_is_scipys(pairs: list[tuple[float, float]]):
    a, b = (np.array(side) for side in zip(*pairs, strict=True))
    p = paired_p(list(a), list(b))
    assert p is not None
    assert 0 <= p <= 1
    if np.std(a - b) > 1e-6:
        assert p == pytest.approx(float(stats.ttest_rel(a, b).pvalue), rel=1e-6, abs=1e-12)  # pyright: ignore[reportAttributeAccessIssue]


def test_paired_p_without_spread_or_pairs():
    assert paired_p([1.0, 2.0], [1.0, 2.0]) == 1.0
    assert paired_p([1.0, 2.0], [1.5, 2.5]) == 0.0
    assert paired_p([1.0], [2.0]) is None
    assert paired_p([], []) is None


def test_holm_by_hand():
    # sorted .01 .02 .03 .04 times 4 3 2 1, made monotone
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_keeps_order_and_never_lowers(p_values: list[float]):
    corrected = holm(p_values)
    assert all(p <= c <= 1 for p, c in zip(p_values, corrected, strict=True))
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    assert all(corrected[i] <= corrected[j] for i, j in itertools.pairwise(order))


def test_what_three_seeds_can_detect():
    assert detectable_ratio(3, 1) == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert detectable_ratio(3, 15) == pytest.approx(9.98, abs=0.01)
    assert detectable_ratio(1, 15) is None
    assert detectable_ratio(3, 0) is None


def test_clear_pair_is_called_whichever_way_round():
    losses = [1.00, 1.10, 1.20]
    task = only(
        finals("X", [v + 0.500 + e for v, e in zip(losses, (0, 0.001, -0.001), strict=True)])
        + finals("Y", losses)
    )
    assert [o.name for o in task.optimizers] == ["Y", "X"]
    assert [o.rank for o in task.optimizers] == [1, 2]
    pair = task.pair("X", "Y")
    assert pair.verdict == B_BETTER
    assert pair.better == "Y"
    assert pair.difference is not None
    assert pair.difference.mean == pytest.approx(0.5)
    turned = task.pair("Y", "X")
    assert turned.verdict == A_BETTER
    assert turned.better == "Y"
    assert turned.difference is not None
    assert turned.difference.low == pytest.approx(-(pair.difference.high or 0))


def test_pairing_finds_what_the_intervals_hide():
    shared = [1.0, 2.0, 3.0]
    task = only(finals("X", shared) + finals("Y", [v + 0.1 + 0.001 * i for i, v in enumerate(shared)]))
    x, y = task.optimizers
    assert x.loss is not None
    assert y.loss is not None
    assert (x.loss.high or 0) > (y.loss.low or 0)
    assert task.pair("X", "Y").verdict == A_BETTER


def test_noise_is_no_detectable_difference():
    task = only(finals("X", [1.0, 1.2, 1.1]) + finals("Y", [1.1, 1.1, 1.15]))
    pair = task.pair("X", "Y")
    assert pair.verdict == NO_DIFFERENCE
    assert pair.better is None
    assert pair.p is not None
    assert pair.p > 0.05
    assert pair.detectable is not None
    assert pair.difference is not None
    assert pair.detectable > abs(pair.difference.mean)


def test_correction_can_take_a_verdict_away():
    # p = 0.0377 alone: t = 5 with two degrees of freedom
    d = 0.1
    differences = [5 / math.sqrt(3) * d - d, 5 / math.sqrt(3) * d, 5 / math.sqrt(3) * d + d]
    base = [1.0, 1.0, 1.0]
    records = finals("X", base) + finals("Y", [1 + v for v in differences])
    alone = only(records).pair("X", "Y")
    assert alone.p == pytest.approx(0.0377, abs=1e-4)
    assert alone.verdict == A_BETTER
    noisy = finals("Z", [1.3, 0.9, 1.2])
    among = only(records + noisy).pair("X", "Y")
    assert among.p == pytest.approx(alone.p)
    assert among.p_holm == pytest.approx(3 * 0.0377, abs=3e-4)
    assert among.verdict == NO_DIFFERENCE


def test_one_seed_cannot_be_tested():
    task = only(finals("X", [1.0]) + finals("Y", [2.0]))
    pair = task.pair("X", "Y")
    assert (pair.verdict, pair.p) == (NO_DIFFERENCE, None)
    assert "one shared seed" in pair.reason
    assert task.tests == 0


def test_missing_seeds_are_left_out_of_the_pair():
    task = only(finals("X", [1.0, 1.1, 1.2]) + finals("Y", [1.5, 1.6])[:2])
    pair = task.pair("X", "Y")
    assert pair.seeds == (1, 2)
    assert task.seeds == (1, 2, 3)
    y = task.optimizers[1]
    assert y.loss is not None
    assert y.loss.n == 2


def test_failed_run_is_a_missing_seed_and_is_listed():
    broken = run("Y", "final", 0.1, 3, None, status="failed", error="\n  ValueError: no\nline two")
    task = only([*finals("X", [1.0, 1.1, 1.2]), *finals("Y", [0.5, 0.6]), broken])
    assert [(o.name, o.rank, o.failed, o.diverged) for o in task.optimizers] == [
        ("Y", 1, 1, 0),
        ("X", 2, 0, 0),
    ]
    (problem,) = task.problems
    assert (problem.optimizer, problem.seed, problem.status, problem.error) == (
        "Y",
        3,
        "failed",
        "ValueError: no",
    )
    assert task.pair("X", "Y").seeds == (1, 2)


def test_diverged_final_run_ranks_below_and_is_never_better():
    task = only(finals("X", [1.0, 1.1, 1.2, 1.0]) + finals("Y", [0.10, 0.20, 0.30, None]))
    assert [o.name for o in task.optimizers] == ["X", "Y"]
    pair = task.pair("X", "Y")
    assert pair.p_holm is not None
    assert pair.p_holm < 0.05
    assert pair.verdict == NO_DIFFERENCE
    assert "diverged" in pair.reason


def test_divergence_in_every_final_run_loses_without_a_test():
    pair = only(finals("X", [1.0, 1.1]) + finals("Y", [None, None])).pair("X", "Y")
    assert (pair.verdict, pair.p) == (A_BETTER, None)


def test_diverged_at_every_lr():
    records = sweep("X", {0.01: 1.0, 0.1: 0.9}) + finals("X", [0.9, 0.8]) + sweep("Y", {0.1: None, 1.0: None})
    task = only(records)
    y = task.optimizers[-1]
    assert (y.name, y.rank, y.best_lr, y.loss, y.diverged) == ("Y", None, None, None, 2)
    assert y.note == "diverged at every lr tried"
    assert y.tunability is None
    assert task.pair("Y", "X").verdict == B_BETTER


def test_everything_diverged():
    records = sweep("X", {0.1: None}) + sweep("AdamW", {0.1: None})
    task = only(records)
    assert [o.rank for o in task.optimizers] == [None, None]
    assert task.target is None
    assert task.pair("X", "AdamW").verdict == NO_DIFFERENCE
    assert len(task.problems) == 2


def test_non_finite_loss_of_an_ok_run_counts_as_divergence():
    task = only([run("X", "final", 0.1, 1, None, status="ok", final_loss=math.nan)])
    assert task.optimizers[0].diverged == 1


def test_best_lr_edge_and_finals_of_other_lrs():
    records = sweep("X", {0.01: 3.0, 0.1: 1.0, 1.0: 2.0}) + finals("X", [1.0, 1.1])
    records.append(run("X", "final", 1.0, 1, 0.01))
    (x,) = only(records).optimizers
    assert (x.best_lr, x.best_at_edge) == (0.1, None)
    assert x.seed_losses == ((1, 1.0), (2, 1.1))
    (x,) = only(sweep("X", {0.01: 3.0, 0.1: 1.0})).optimizers
    assert (x.best_lr, x.best_at_edge, x.rank) == (0.1, "high", None)
    assert x.note == "tuned, but no final run yet"
    assert x.curves_from == "sweep"


def test_lr_that_diverged_on_one_tuning_seed_is_not_eligible():
    records = [*sweep("X", {0.1: 2.0, 1.0: 1.0}), run("X", "sweep", 1.0, 9, None)]
    (x,) = only(records).optimizers
    assert x.best_lr == 0.1
    assert [p.status for p in x.sweep] == ["ok", "diverged"]


def test_finals_at_another_lr_than_the_best_are_said_so():
    (x,) = only(sweep("X", {0.1: 1.0, 1.0: 0.5}) + finals("X", [1.0, 1.1])).optimizers
    assert x.best_lr == 0.1
    assert "search's best lr is 1" in x.note


def test_no_sweep_uses_the_lr_given():
    (x,) = only(finals("X", [1.0, 1.1])).optimizers
    assert (x.best_lr, x.note, x.tunability) == (0.1, "lr given, not swept", None)


def test_later_record_of_a_run_replaces_the_earlier():
    (x,) = only([run("X", "final", 0.1, 1, None), run("X", "final", 0.1, 1, 1.0)]).optimizers
    assert x.seed_losses == ((1, 1.0),)
    assert x.diverged == 0


def test_other_settings_are_counted_not_mixed():
    records = [*finals("X", [1.0, 1.1]), run("X", "final", 0.1, 3, 0.1, steps=999)]
    records.insert(0, run("X", "final", 0.1, 3, 0.2, task_version="0"))
    task = only(records)
    assert (task.steps, task.version, task.ignored) == (100, "1", 2)
    assert [seed for seed, _ in task.optimizers[0].seed_losses] == [1, 2]


def points(losses: dict[float, float | None]) -> list[SweepPoint]:
    return [SweepPoint(lr, None, v, "diverged" if v is None else "ok", 1) for lr, v in losses.items()]


def test_tunability_by_interpolation():
    # 10 % over 1.0 is a tenth of the way to 2.0, one decade off, on both sides
    region = tunability(points({0.01: 2.0, 0.1: 1.0, 1.0: 2.0}), 0.10)
    assert region is not None
    assert region.decades == pytest.approx(0.2)
    assert region.low == pytest.approx(10**-1.1)
    assert not region.at_least


def test_tunability_at_the_edge_and_at_divergence():
    region = tunability(points({0.01: 1.05, 0.1: 1.0, 1.0: None}), 0.10)
    assert region is not None
    assert (region.low, region.high, region.at_least) == (pytest.approx(0.01), pytest.approx(0.1), True)
    closed = tunability(points({0.001: None, 0.1: 1.0, 1.0: None}), 0.10)
    assert closed is not None
    assert (closed.decades, closed.at_least) == (0.0, False)
    assert tunability(points({0.1: None}), 0.10) is None


def test_tunability_is_one_region_around_the_best():
    region = tunability(points({0.001: 1.0, 0.01: 5.0, 0.1: 0.99, 1.0: 5.0}), 0.10)
    assert region is not None
    assert region.low > 0.01


def test_first_crossing_interpolates():
    assert first_crossing([0, 100, 200], [2.0, 1.0, 0.5], 1.5) == pytest.approx(50)
    assert first_crossing([0, 100, 200], [2.0, 1.0, 0.5], 0.75) == pytest.approx(150)
    assert first_crossing([0, 100, 200], [2.0, 1.0, 1.6], 1.5) == pytest.approx(50)
    assert first_crossing([0, 100], [2.0, 1.0], 0.9) is None
    assert first_crossing([10, 100], [2.0, 1.0], 3.0) == 10
    assert first_crossing([], [], 1.0) is None


def test_steps_and_seconds_to_the_tuned_references_loss():
    # linear from 2 at step 0: AdamW to 1.0, X to 0.5, Y to 1.5
    records = finals("AdamW", [1.0, 1.0]) + finals("X", [0.5, 0.5], step_ms=12.0) + finals("Y", [1.5, 1.5])
    task = only(records)
    x, ref, y = task.optimizers
    assert task.target == 1.0
    assert x.steps_to_target == pytest.approx(100 / 1.5)
    assert x.budget == pytest.approx(1 / 1.5)
    assert x.seconds_to_target == pytest.approx(100 / 1.5 * 0.020)
    assert x.time_budget == pytest.approx(20 / 1.5 / 10)
    assert x.reference_steps is None
    assert ref.steps_to_target == pytest.approx(100)
    assert ref.time_budget == pytest.approx(1.0)
    assert (y.steps_to_target, y.seconds_to_target, y.budget) == (None, None, None)
    assert y.reference_steps == pytest.approx(50)


def test_a_busy_moment_does_not_slow_one_optimizer():
    records = finals("AdamW", [1.0]) + finals("X", [1.0], fwd_bwd_ms=800.0) + finals("Y", [1.0])
    task = only(records)
    assert task.fwd_bwd_ms == 8.0
    assert all(o.seconds_to_target == pytest.approx(1.0) for o in task.optimizers)


def test_curve_that_stops_before_the_end_is_ended_by_the_final_loss():
    (ref,) = only(finals("AdamW", [1.0], val_curve=((0, 2.0), (50, 1.4)))).optimizers
    assert ref.validation is not None
    assert (ref.validation.steps, ref.validation.mean) == ((0, 50, 100), (2.0, 1.4, 1.0))
    assert ref.steps_to_target == pytest.approx(100)


def test_no_reference_no_target():
    task = only(finals("X", [1.0, 1.1]) + finals("Y", [1.2, 1.3]))
    assert task.target is None
    assert task.optimizers[0].steps_to_target is None
    assert only(finals("X", [1.0]), reference="X").target == 1.0


def test_mean_curve_of_seeds_on_different_steps():
    curve = mean_curve([[(0, 4.0), (10, 2.0)], [(0, 2.0), (5, 1.0), (20, 0.0)], []])
    assert curve is not None
    assert curve.steps == (0, 5, 10)
    assert curve.mean == pytest.approx((3.0, 2.0, (2 + 2 / 3) / 2))
    assert curve.low == pytest.approx((2.0, 1.0, 2 / 3))
    assert curve.high == pytest.approx((4.0, 3.0, 2.0))
    assert curve.seeds == 2
    assert mean_curve([[(1, math.nan)]]) is None
    assert mean_curve([[(0, 1.0), (1, math.inf), (2, 1.0)]]).steps == (0,)  # pyright: ignore[reportOptionalMemberAccess]
    assert mean_curve([[(0, 1.0)], [(5, 1.0)]]) is None


def test_cost_and_metrics():
    (x,) = only(finals("X", [1.0, 2.0])).optimizers
    assert (x.step_ms, x.fwd_bwd_ms, x.state_bytes_per_param) == (2.0, 8.0, 8.0)
    assert x.metrics["accuracy" if "accuracy" in x.metrics else "val_accuracy"].mean == pytest.approx(0.85)
    (bare,) = only(finals("X", [1.0], step_ms=None, fwd_bwd_ms=None, param_count=0, metrics={})).optimizers
    assert (bare.step_ms, bare.state_bytes_per_param, dict(bare.metrics)) == (None, None, {})


def test_across_tasks():
    records = finals("X", [1.0, 1.1]) + finals("Y", [2.0, 2.2])
    records += finals("X", [2.0, 2.1], task="other") + finals("Y", [1.0, 1.2], task="other")
    records += finals("Z", [None, None], task="other")
    rows = {row.optimizer: row for row in summarize(records).overall}
    assert rows["X"].mean_rank == rows["Y"].mean_rank == 1.5
    assert rows["Z"].mean_rank == 3
    assert dict(rows["Z"].ranks) == {"other": None}
    assert rows["Z"].detected_losses == 2
    assert rows["X"].detected_wins >= 1


def test_nothing_recorded():
    summary = summarize([])
    assert (summary.tasks, summary.overall) == ((), ())
    assert table_rows(summary) == []


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, math.nan, math.inf])
def test_bad_options_are_named(value: float):
    with pytest.raises(ValueError, match="alpha"):
        summarize([], alpha=value)
    if value != 1.0:
        with pytest.raises(ValueError, match="tolerance"):
            summarize([], tolerance=value)


def test_order_of_records_does_not_matter():
    records = (
        sweep("X", {0.01: 2.0, 0.1: 1.0})
        + finals("X", A)
        + finals("Y", B)
        + finals("AdamW", [1.2, 1.3, 1.25])
    )
    forward, backward = only(records), only(records[::-1])
    assert forward.optimizers == backward.optimizers
    assert forward.pairs == backward.pairs


def test_terminal_rows():
    records = sweep("X", {0.01: 3.0, 0.1: 1.0, 1.0: None}) + finals("X", [0.5, 0.5001, 0.4999])
    records += finals("AdamW", [1.0, 1.0001, 0.9999]) + sweep("Y", {0.1: None})
    rows = table_rows(summarize(records))
    assert all(tuple(row) == TABLE_COLUMNS for row in rows)
    assert [row["optimizer"] for row in rows] == ["X", "AdamW", "Y"]
    first, ref, last = rows
    assert first["rank"] == "1"
    assert first["val loss"] == "0.50000 ± 0.00025"
    assert first["to target"] == "67 steps (67 %)"
    assert first["vs reference"] == "better"
    assert first["diverged"] == "1"
    assert ref["to target"] == "sets the target"
    assert last["val loss"] == "diverged at every lr tried"
    assert last["vs reference"] == "worse"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (0.12345, "0.123"),
        (9.996, "10.0"),
        (1234.5, "1234"),
        (1.5e-9, "1.50e-9"),
        (math.inf, "∞"),
    ],
)
def test_numbers(value: float | None, text: str):
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("lr", "text"), [(0.001, "0.001"), (1e-5, "1e-5"), (0.0316228, "0.0316"), (None, "–")]
)
def test_learning_rates(lr: float | None, text: str):
    assert format_lr(lr) == text


def test_estimates():
    assert format_estimate(None) == "–"
    assert format_estimate(estimate([0.5])) == "0.5000"
    assert format_estimate(estimate([0.5, 0.5])) == "0.5000"
    assert format_estimate(estimate(A)) == "1.10 ± 0.25"
    assert format_estimate(estimate([1e36, 3e36, 5e36])) == "3.0e36 ± 5.0e36"
    assert format_estimate(estimate(A), 3) == "1.100 ± 0.248"


def test_a_second_stage_of_the_search_decides_the_arguments_too():
    first = sweep("X", {0.01: 1.5, 0.1: 1.0, 1.0: 1.2})
    trials = [
        run("X", "tune", 0.1, 0, 0.9, kwargs={"momentum": 0.8}),
        run("X", "tune", 0.1, 0, 0.7, kwargs={"momentum": 0.95}),
        run("X", "tune", 0.2, 0, None, kwargs={"momentum": 0.99}),
    ]
    best = finals("X", [0.71, 0.72], kwargs={"momentum": 0.95})
    untuned = finals("X", [1.01, 1.02, 1.03])
    (x,) = only([*first, *trials, *untuned, *best]).optimizers
    assert (x.best_lr, x.best_arguments, x.trials) == (0.1, {"momentum": 0.95}, 3)
    assert dict(x.seed_losses) == {1: 0.71, 2: 0.72}
    assert [point.loss for point in x.sweep] == [1.5, 1.0, 1.2]
    assert x.note == ""
    (x,) = only([*first, *untuned]).optimizers
    assert (x.best_arguments, x.trials, len(x.seed_losses)) == ({}, 0, 3)


def test_a_stopped_run_of_the_search_cannot_win_and_is_listed():
    stopped = run("X", "sweep", 1.0, 0, None, status="stopped", error="stopped at step 50: never below 2")
    task = only([*sweep("X", {0.1: 1.0}), stopped, *finals("X", [1.0, 1.1])])
    (x,) = task.optimizers
    assert [(p.lr, p.status) for p in x.sweep] == [(0.1, "ok"), (1.0, "stopped")]
    assert (x.best_lr, x.diverged, x.failed) == (0.1, 0, 0)
    assert [(p.status, p.error) for p in task.problems] == [("stopped", "stopped at step 50: never below 2")]
