from __future__ import annotations

from dataclasses import replace

import pytest
import race_toys

from steepest.race.paper import Claim, Paper, higher_is_better
from steepest.race.records import RaceError
from steepest.race.task import Task
from steepest.race.task_text import TaskText, load_task, load_tasks


def test_presets_and_options_reach_the_function_that_makes_the_task() -> None:
    plain = load_task("race_toys:sized")
    assert (plain.name, plain.preset, plain.steps) == ("sized", "cpu", 6)
    full = load_task("race_toys:sized@full(hidden=3, mode='wide')")
    assert (full.name, full.preset, full.steps) == ("sized-wide", "full", 60)
    assert full.model(full.data())[0].out_features == 3  # pyright: ignore
    assert load_task("race_toys:sized( hidden = 3 )").preset == "cpu"
    assert load_task("race_toys:task@cpu") is race_toys.task


def test_a_text_has_one_way_to_be_written_and_is_made_once() -> None:
    text = TaskText.parse(" race_toys:sized @full( mode = 'wide',hidden=3 )")
    assert str(text) == "race_toys:sized@full(mode='wide', hidden=3)"
    assert TaskText.parse(str(text)) == text
    assert load_task("race_toys:sized@full") is load_task(" race_toys:sized @full ")


def test_a_preset_for_all_is_for_the_tasks_that_have_presets_and_name_none() -> None:
    texts = ["race_toys:task", "race_toys:sized", "race_toys:sized@cpu(mode='wide')"]
    tasks = load_tasks(texts, preset="full")
    assert {text: task.preset for text, task in tasks.items()} == {
        "race_toys:task": "cpu",
        "race_toys:sized@full": "full",
        "race_toys:sized(mode='wide')": "cpu",
    }
    assert list(load_tasks(["race_toys:task", "race_toys:sized"], preset="cpu")) == [
        "race_toys:task",
        "race_toys:sized",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("digit", "unknown task 'digit'; did you mean 'digits'?"),
        ("race_toys:sized@ful", "preset must be one of cpu, full, got 'ful'; did you mean 'full'?"),
        ("race_toys:sized@", "preset must be one of cpu, full, got ''"),
        ("race_toys:sized(hiden=3)", "unknown option 'hiden'; did you mean 'hidden'?"),
        ("race_toys:sized(preset='full')", "write the preset as race_toys:sized@full"),
        ("race_toys:sized(hidden=print())", "cannot read task"),
        ("race_toys:sized(hidden=3)(4)", "cannot read task"),
        ("race_toys:sized(3)", "cannot read task"),
        ("race_toys:task@full", "has no preset 'full'"),
        ("race_toys:task(hidden=3)", "takes no options"),
        ("race_toys:unsized@full", "has no presets"),
        ("race_toys:unsized(hidden=3)", "unknown option 'hidden'; it takes none"),
        ("race_toys:sized(mode='wrong')", "ValueError: mode must be narrow or wide"),
        ("race_toys:data", "made a tuple, not a steepest.race.Task"),
        ("race_toys:missing", "cannot load task 'race_toys:missing': AttributeError"),
        ("no_such_module:task", "cannot load task 'no_such_module:task': ModuleNotFoundError"),
        ("race_toys:__name__", "is a str, not a steepest.race.Task"),
    ],
)
def test_what_is_no_task_is_told_in_one_line(text: str, message: str) -> None:
    with pytest.raises(RaceError) as caught:
        load_task(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_sizes_of_one_task_are_two_races() -> None:
    with pytest.raises(RaceError, match="two tasks are named 'sized'; race them apart"):
        load_tasks(["race_toys:sized", "race_toys:sized@full"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "huge"}, "preset must be one of cpu, full, got 'huge'"),
        (
            {"schedule": "cosin"},
            "schedule must be one of linear, cosine, constant, got 'cosin'; did you mean",
        ),
        ({"warmup": 1.0}, "warmup must be a part of the steps, at least 0 and below 1, got 1.0"),
    ],
)
def test_a_task_refuses_what_the_engine_cannot_follow(changes: dict, message: str) -> None:
    with pytest.raises(RaceError, match=message):
        replace(race_toys.task, **changes)


PAPER = Paper("here", 5, 4, (1, 2), {"AdamW": 1e-3}, {"Muon": (0.1, 0.2)}, {"Muon": {"nesterov": False}})


def test_a_paper_tells_who_ran_at_which_rates() -> None:
    assert PAPER.optimizers == ("AdamW", "Muon")
    assert PAPER.rates == {"AdamW": (1e-3,), "Muon": (0.1, 0.2)}
    assert (PAPER.schedule, PAPER.warmup) == ("constant", 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "Paper.steps must be at least 1, got 0"),
        ({"batch_size": 0}, "Paper.batch_size must be at least 1"),
        ({"seeds": ()}, "Paper.seeds must be different numbers, at least one"),
        ({"seeds": (1, 1)}, "Paper.seeds must be different numbers"),
        ({"fixed": {}, "swept": {}, "kwargs": {}}, "must name the optimizers"),
        ({"swept": {"AdamW": (0.1,)}, "kwargs": {}}, "both name AdamW"),
        ({"kwargs": {"SGD": {}}}, "names SGD, which is neither"),
        ({"fixed": {"AdamW": 0.0}}, "learning rates of AdamW must be positive"),
        ({"swept": {"Muon": ()}}, "learning rates of Muon must be positive"),
        ({"schedule": "step"}, "schedule must be one of"),
    ],
)
def test_a_paper_that_cannot_be_repeated_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(RaceError, match=message):
        replace(PAPER, **changes)


def test_claims_are_plain_data_with_three_relations() -> None:
    claim = Claim("here", "Muon wins", "Muon", "better", "AdamW")
    assert Claim(**claim.to_dict()) == claim
    with pytest.raises(RaceError, match="relation must be one of better, no worse, equal, got 'best'"):
        replace(claim, relation="best")
    with pytest.raises(RaceError, match="margin must not be negative"):
        replace(claim, margin=-1.0)
    assert [higher_is_better(m) for m in ("val_loss", "val_accuracy", "Matthews")] == [False, True, True]


def test_texts_of_tasks_survive_the_way_to_a_worker() -> None:
    tasks = load_tasks(["race_toys:sized@full(hidden=3, mode='wide')"])
    (text, task), *_ = tasks.items()
    assert isinstance(task, Task)
    assert load_task(text) is task
