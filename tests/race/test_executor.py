from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import race_toys

from steepest.race.contenders import parse_contender
from steepest.race.executor import LocalWorkers
from steepest.race.records import RaceError, RunRecord
from steepest.race.training import RunSpec, make_spec, train


def spec(optimizer: str, seed: int = 1, steps: int = 6, task: str = "race_toys:task") -> RunSpec:
    contender = parse_contender(optimizer)
    aux_lr = 0.01 if contender.is_hybrid() else None
    return make_spec(
        task, race_toys.task, contender, lr=0.05, aux_lr=aux_lr, seed=seed, phase="final", steps=steps
    )


def do(specs: list[RunSpec], workers: int, log: Path) -> dict[str, RunRecord]:
    executor = LocalWorkers(workers, log)
    done: list[RunRecord] = []
    try:
        waiting, flying = list(specs), 0
        while waiting or flying:
            while waiting and flying < executor.slots:
                executor.submit(waiting.pop())
                flying += 1
            done.append(executor.next_record())
            flying -= 1
    finally:
        executor.close()
    assert len(done) == len(specs)
    return {record.key: record for record in done}


@pytest.fixture(autouse=True)
def deaths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "deaths"
    path.write_bytes(b"")
    monkeypatch.setenv("DEATHS", str(path))
    return path


def test_results_do_not_depend_on_processes_or_how_many(tmp_path: Path) -> None:
    specs = [spec(name, seed) for name in ("AdamW", "Muon", "MuAdam") for seed in (1, 2)]
    here = {s.key: train(s) for s in specs}
    for workers in (1, 2):
        there = do(specs, workers, tmp_path / "log")
        assert there.keys() == here.keys()
        for key, record in there.items():
            assert record.hardware["threads"] == 1
            assert (record.train_curve, record.val_curve) == (here[key].train_curve, here[key].val_curve)


def test_a_run_whose_worker_dies_is_repeated_once_and_then_recorded_as_failed(
    tmp_path: Path, deaths: Path
) -> None:
    deaths.write_bytes(b"x")
    repeated, other = spec("race_toys:Dies"), spec("SGD")
    records = do([repeated, other], 1, tmp_path / "log")
    assert [records[s.key].status for s in (repeated, other)] == ["ok", "ok"]
    deaths.write_bytes(b"xx")
    records = do([repeated, other], 1, tmp_path / "log")
    assert records[repeated.key].status == "failed"
    assert records[repeated.key].error == "the worker process died in 2 attempts (exit code 9)"
    assert records[other.key].status == "ok"


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
def test_a_killed_worker_loses_only_its_run_which_is_repeated(tmp_path: Path) -> None:
    executor = LocalWorkers(1, tmp_path / "log")
    try:
        executor.submit(spec("SGD"))
        executor.next_record()
        executor.submit(spec("AdamW", steps=2000))
        os.kill(executor._busy[0].process.pid, signal.SIGKILL)
        assert executor.next_record().status == "ok"
    finally:
        executor.close()


def test_what_a_class_prints_goes_to_the_log_and_not_into_the_answers(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "chatty.py").write_text(
        "import torch\n"
        "class Chatty(torch.optim.SGD):\n"
        "    def __init__(self, params, lr=0.1):\n"
        "        print('hello from the class', flush=True)\n"
        "        super().__init__(params, lr=lr)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    records = do([spec("chatty:Chatty")], 1, tmp_path / "log")
    assert [r.status for r in records.values()] == ["ok"]
    assert "hello from the class" in (tmp_path / "log").read_text()


def test_a_worker_that_cannot_start_stops_the_race(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    executor = LocalWorkers(1, tmp_path / "log")
    try:
        executor.submit(spec("SGD"))
        with pytest.raises(RaceError, match=r"ended at its start \(exit code 1\)"):
            executor.next_record()
    finally:
        executor.close()
