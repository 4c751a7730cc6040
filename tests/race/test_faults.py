"""Whatever goes wrong, what is recorded stays and the same call goes on."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import race_toys

from steepest.cli import main
from steepest.race.contenders import parse_contender
from steepest.race.manifest import latest_race
from steepest.race.records import FILE_NAME, read_records
from steepest.race.spec import make_spec
from steepest.race.task_text import load_task
from steepest.race.training import train

CALL = ["race", "race_toys:task", "--optimizers", "SGD", "--seeds", "2", "--workers", "1"]


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    def here(*_, workers: int | None = None, **__):
        return importlib.import_module("race_toys").Inline(workers or 1)

    monkeypatch.setattr("steepest.cli.racing.make_executor", here)
    monkeypatch.setattr(
        "steepest.cli.reporting.write_report", lambda *_, **__: "no report: it is tested elsewhere"
    )


def results(folder: Path) -> list[tuple]:
    return [(r.key, r.phase, r.status, r.final_loss, r.train_curve) for r in latest_race(folder)[0]]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let the system refuse to make a file longer, in the middle of a write, as a full disk does."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_race_that_finds_the_disk_full_says_so_and_goes_on_later(tmp_path: Path, capsys) -> None:
    whole, full = tmp_path / "whole", tmp_path / "full"
    assert main([*CALL, "--out", str(whole)]) == 0
    lines = (whole / FILE_NAME).read_bytes().splitlines(keepends=True)
    with files_of_at_most(sum(map(len, lines[:4])) + len(lines[4]) // 2):
        assert main([*CALL, "--out", str(full)]) == 1
    err = capsys.readouterr().err
    assert f"cannot write {full / FILE_NAME}: File too large" in err
    assert len(err.splitlines()) == 1
    kept = (full / FILE_NAME).read_bytes()
    assert kept.endswith(b"\n")
    assert len(read_records(full)) == len(kept.splitlines()) == 4
    assert main([*CALL, "--out", str(full)]) == 0
    assert "4 of 14 runs are already recorded" in capsys.readouterr().out
    assert results(full) == results(whole)


def raising(*_):
    raise RuntimeError("not\ntoday")


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ("model", "before the first step"),
        ("batch", "step 1"),
        ("loss", "step 1"),
        ("evaluate", "before the first"),
    ],
)
def test_a_task_that_raises_fails_its_runs_and_no_others(
    part: str, place: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(
        race_toys, "unsized", lambda: replace(race_toys.task, name="broken", **{part: raising})
    )
    call = ["race", "race_toys:unsized", *CALL[1:], "--lr-grid", "0.1", "--out", str(tmp_path)]
    assert main(call) == 0  # the other task is raced
    out = capsys.readouterr().out
    assert "broken AdamW: RuntimeError: not today" in out
    by_task = {name: [r for r in read_records(tmp_path) if r.task == name] for name in ("broken", "toy")}
    assert {r.status for r in by_task["toy"]} == {"ok"}
    assert {r.status for r in by_task["broken"]} == {"failed"}
    assert all(place in str(r.error) for r in by_task["broken"])
    assert len(by_task["broken"]) == 2  # one per optimizer: another rate would not help
    monkeypatch.setattr(race_toys, "unsized", lambda: replace(race_toys.task, name="broken"))
    assert main([*call, "--retry-failed"]) == 0
    assert {r.status for r in read_records(tmp_path)} == {"ok"}


def test_data_that_cannot_be_loaded_is_told_once_before_any_run(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(race_toys, "unsized", lambda: replace(race_toys.task, name="dataless", data=raising))
    assert main(["race", "race_toys:unsized", *CALL[1:], "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "steepest: task dataless: RuntimeError: not today\n"
    assert read_records(tmp_path) == []


def test_a_failing_step_in_the_middle_keeps_the_curve_so_far(monkeypatch) -> None:
    calls = iter(range(100))

    def sometimes(network, index):
        if next(calls) == 4:
            raise RuntimeError("fifth loss")
        return race_toys.loss(network, index)

    monkeypatch.setattr(race_toys, "task", replace(race_toys.task, loss=sometimes))
    task = load_task("race_toys:task")
    record = train(
        make_spec(
            "race_toys:task",
            task,
            parse_contender("SGD"),
            lr=0.1,
            aux_lr=None,
            seed=1,
            phase="final",
            steps=20,
        )
    )
    assert (record.status, record.error) == ("failed", "RuntimeError: fifth loss (step 5)")
    assert len(record.train_curve) == 4
