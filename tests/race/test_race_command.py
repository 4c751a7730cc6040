"""What the options of `steepest race` do to its runs."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest
import torch

from steepest.cli import main
from steepest.race.manifest import latest_race


@pytest.fixture
def race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Race in this process; return the exit code and the records."""

    def here(*_, workers: int | None = None, **__):
        return importlib.import_module("race_toys").Inline(workers or 1)

    def call(*arguments: str):
        code = main(["race", *arguments, "--out", str(tmp_path / "out")])
        return code, latest_race(tmp_path / "out")[0] if code == 0 else []

    monkeypatch.setattr("steepest.cli.racing.make_executor", here)
    monkeypatch.setattr("steepest.cli.racing.conclude", lambda *_: True)  # the report is tested elsewhere
    monkeypatch.setenv("STEEPEST_DATA", "")
    return call


FEW = ("--optimizers", "SGD", "--seeds", "1", "--lr-grid", "0.1", "--steps", "3")


def test_tasks_presets_data_and_engine_reach_the_runs(race, tmp_path: Path) -> None:
    engine = (
        "--clip",
        "0.5",
        "--accumulate",
        "2",
        "--schedule",
        "cosine",
        "--warmup",
        "0.2",
        "--threads",
        "2",
    )
    tasks = ("race_toys:task", "race_toys:sized(hidden=3),race_toys:sized(mode='wide')")
    code, records = race(*tasks, *FEW, *engine, "--preset", "full", "--data", str(tmp_path))
    assert code == 0
    assert os.environ["STEEPEST_DATA"] == str(tmp_path.resolve())
    assert {(r.task, r.preset, r.settings["task"]) for r in records} == {
        ("toy", "cpu", "race_toys:task"),
        ("sized", "full", "race_toys:sized@full(hidden=3)"),
        ("sized-wide", "full", "race_toys:sized@full(mode='wide')"),
    }
    assert len(records) == 3 * 2 * 2
    for record in records:
        assert record.status == "ok", record.error
        options = record.engine
        assert (options["clip"], options["accumulate"], options["threads"]) == (0.5, 2, 2)
        assert (options["schedule"], options["warmup"]) == ("cosine", 0.2)
        assert record.settings["schedule"].endswith("cosine decay to zero")


def test_a_papers_race_has_the_papers_optimizers_unless_some_are_named(race) -> None:
    _, records = race("race_toys:published", "--protocol", "paper")
    assert {r.optimizer for r in records} == {"AdamW", "Muon", "ANDI"}
    _, records = race("race_toys:published", "--protocol", "paper", "--optimizers", "Muon")
    assert {r.optimizer for r in records} == {"AdamW", "Muon"}


def test_a_papers_race_refuses_other_seeds(race, capsys) -> None:
    assert race("race_toys:published", "--protocol", "paper", "--seeds", "2")[0] == 2
    assert "--protocol paper has the paper's seeds: leave out --seeds" in capsys.readouterr().err


def test_a_second_stage_is_asked_for_on_the_command_line(race) -> None:
    _, records = race("race_toys:task", *FEW, "--tune", "momentum,weight_decay", "--trials", "2")
    assert [r.phase for r in records if r.optimizer == "SGD"] == ["sweep", "tune", "tune", "final"]


def test_hopeless_runs_are_run_to_their_end_if_asked(race) -> None:
    hopeless = (
        "race_toys:task",
        *FEW[:4],
        "--lr-grid",
        "0.01,20",
        "--steps",
        "16",
        "--optimizers",
        "SignSGD",
    )
    _, records = race(*hopeless)
    assert "stopped" in {r.status for r in records}
    _, records = race(*hopeless, "--no-early-stop")
    assert "stopped" not in {r.status for r in records}


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator")
def test_a_device_that_is_not_here_is_refused_before_anything_starts(race, tmp_path: Path, capsys) -> None:
    assert race("race_toys:task", "--device", "cuda")[0] == 2
    assert "device 'cuda' is not available here; accelerators found: none" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
