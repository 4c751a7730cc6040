from dataclasses import replace

import pytest
from race_records import finals, run

from steepest.race.statistics import Event, summarize
from steepest.race.statistics.events import titles

CPU = {"device": "cpu", "compile": False}
CUDA = {"device": "cuda", "compile": False}


def test_a_lone_ordinary_race_is_called_by_its_task():
    assert list(titles([Event("saddle"), Event("gpt")]).values()) == ["saddle", "gpt"]


def test_what_differs_or_is_unusual_is_told():
    events = [
        Event("cifar"),
        Event("cifar", "full"),
        Event("cifar", "full", "paper"),
        Event("gpt", "full"),
        Event("saddle"),
    ]
    assert list(titles(events).values()) == [
        "cifar (cpu, fair protocol)",
        "cifar (full, fair protocol)",
        "cifar (full, paper protocol)",
        "gpt (full)",
        "saddle",
    ]


def test_engines_are_told_apart_by_what_differs():
    records = [
        run("X", "final", 0.1, 1, 1.0, engine=engine) for engine in (CPU, CUDA, CUDA | {"compile": True})
    ]
    assert [task.name for task in summarize(records).tasks] == [
        "toy (compile false, device cpu)",
        "toy (compile false, device cuda)",
        "toy (compile true, device cuda)",
    ]
    assert [t.name for t in summarize(records[1:2]).tasks] == ["toy"]


@pytest.mark.parametrize("other", [{"preset": "full"}, {"protocol": "paper"}, {"engine": CUDA}])
def test_events_are_never_mixed(other: dict):
    here = finals("X", [1.0, 1.1, 1.2], engine=CPU)
    there = [replace(r, key=f"there {r.key}", final_loss=9.0, **other) for r in here]
    first, second = summarize([*here, *there]).tasks
    assert [len(t.optimizers) for t in (first, second)] == [1, 1]
    assert first.optimizers[0].loss is not None
    assert second.optimizers[0].loss is not None
    assert first.optimizers[0].loss.mean == pytest.approx(1.1)
    assert second.optimizers[0].loss.mean == pytest.approx(9.0)
    assert first.event.options == CPU


def test_events_of_one_task_stand_together():
    records = [
        run("X", "final", 0.1, 1, 1.0, task="a"),
        run("X", "final", 0.1, 1, 1.0, task="b"),
        run("X", "final", 0.1, 1, 1.0, task="a", preset="full"),
    ]
    assert [t.event.task for t in summarize(records).tasks] == ["a", "a", "b"]


def test_the_order_of_an_engines_options_does_not_matter():
    one, other = run("X", "final", 0.1, 1, 1.0, engine=CPU), run("X", "final", 0.1, 2, 1.0, engine=CPU)
    assert Event.of(one) == Event.of(replace(other, engine=dict(reversed(CPU.items()))))
