from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch

from bench.tiny import TINY
from steepest.bench import timing
from steepest.bench.contenders import Contender
from steepest.bench.sets import Gradients
from steepest.bench.timing import FEWEST, MOST, measure


class Recorder:
    """Writes down who steps when; may fail or be interrupted at a step."""

    def __init__(self, name: str, log: list[str], act: Callable[[int], Any] = lambda step: None) -> None:
        self.name, self.log, self.act = name, log, act
        self.count = 0

    def step(self) -> None:
        self.count += 1
        self.log.append(self.name)
        self.act(self.count)

    def states(self) -> list[Any]:
        return [{"buffer": torch.zeros(10)}]


def contender(name: str, log: list[str], act: Callable[[int], Any] = lambda step: None, cycle: int = 1):
    return Contender(name, "steepest", name, lambda p: Recorder(name, log, act), cycle)


def test_each_round_steps_all_once_in_an_order_that_rotates() -> None:
    log: list[str] = []
    rows, whole = measure([contender(n, log) for n in "abc"], Gradients(TINY), 0.0, rounds=4)
    assert whole
    assert "".join(log) == "aabbcc" + "abc" + "bca" + "cab" + "abc"  # first step and warm-up, then rounds
    assert [len(row.times) for row in rows] == [4, 4, 4]
    told = rows[0].to_json(5)
    assert told["state_bytes_per_parameter"] == 8
    assert len(told["times_ms"]) == 4


def test_rounds_come_in_whole_cycles_and_the_warm_up_is_one() -> None:
    log: list[str] = []
    rows, _ = measure([contender("a", log), contender("b", log, cycle=4)], Gradients(TINY), 0.0)
    assert len(rows[1].times) == 8  # the least that is whole and not below five
    assert log.count("b") == 1 + 4 + 8


def test_the_budget_decides_between_the_fewest_and_the_most(monkeypatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(ticks)))
    log: list[str] = []
    alone = [contender("a", log)]
    assert len(measure(alone, Gradients(TINY), 0.0)[0][0].times) == FEWEST
    between = len(measure(alone, Gradients(TINY), 60.0)[0][0].times)
    assert FEWEST < between < MOST
    assert len(measure(alone, Gradients(TINY), 1e9)[0][0].times) == MOST


def test_one_that_fails_leaves_the_others_alone() -> None:
    log: list[str] = []

    def fail(step: int) -> None:
        if step == 4:
            raise ZeroDivisionError("third of\nthe rounds")

    rows, whole = measure([contender("a", log), contender("b", log, fail)], Gradients(TINY), 0.0, rounds=6)
    assert whole
    assert len(rows[0].times) == 6
    assert rows[1].to_json(1)["error"] == "failed: ZeroDivisionError: third of the rounds"
    assert "times_ms" not in rows[1].to_json(1)


def test_ctrl_c_keeps_the_rounds_that_all_have_finished() -> None:
    log: list[str] = []

    def stop(step: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    rows, whole = measure([contender("a", log), contender("b", log, stop)], Gradients(TINY), 0.0, rounds=9)
    assert not whole
    assert [len(row.times) for row in rows] == [2, 2]
