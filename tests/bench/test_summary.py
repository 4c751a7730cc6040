from __future__ import annotations

import pytest

from bench.tiny import row
from steepest.bench.summary import beyond_seconds, cycles, fastest_peer, jump, ratio, spread, step_ms


def test_median_and_quartiles() -> None:
    assert spread([3.0]) == spread([3.0, 3.0])
    found = spread([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.low, found.middle, found.high) == (2, 3, 4)


def test_a_scheduled_method_counts_by_the_mean_of_a_cycle() -> None:
    scheduled = row("steepest SOAP", [1.0, 1.0, 1.0, 9.0] * 2 + [1.0], cycle=4)
    assert cycles(scheduled) == [3, 3]
    assert step_ms(scheduled).middle == 3
    assert jump(scheduled) == 9


def test_ratios_are_taken_within_rounds() -> None:
    a = row("steepest ANDI", [1.0, 20.0, 3.0])  # the machine was busy in the second round
    b = row("torch AdamW fused", [2.0, 40.0, 6.0])
    assert ratio(a, b) == spread([0.5, 0.5, 0.5])


def test_ratios_with_a_schedule_are_taken_within_its_cycles() -> None:
    a = row("steepest SOAP", [1.0, 3.0, 1.0, 3.0], cycle=2)
    b = row("torch AdamW fused", [1.0, 1.0, 2.0, 2.0])
    assert ratio(a, b) == spread([2.0, 1.0])


def test_the_first_step_counts_beyond_the_median() -> None:
    assert beyond_seconds(row("a", [10.0, 10.0, 90.0], first_ms=1010.0)) == pytest.approx(1.0)


def test_the_fastest_peer_has_the_same_method_and_another_library() -> None:
    ours = row("steepest Muon", [1.0])
    rows = [ours, row("torch Muon", [4.0]), row("heavyball Muon", [3.0]), row("torch AdamW", [0.1])]
    assert fastest_peer(ours, rows) is rows[2]
    assert fastest_peer(row("steepest MuAdam", [1.0]), rows) is None
    assert fastest_peer(row("steepest ANDI", [1.0]), [row("plain ANDI", [9.0])]) is None
