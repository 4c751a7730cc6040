from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import race_toys

from steepest.race.contenders import parse_contender
from steepest.race.executors.local import LocalWorkers
from steepest.race.records import RaceError, RunRecord
from steepest.race.spec import RunSpec, make_spec
from steepest.race.training import train


def spec(optimizer: str, seed: int = 1, steps: int = 6, task: str = "race_toys:task") -> RunSpec:
    contender = parse_contender(optimizer)
    aux_lr = 0.01 if contender.is_hybrid() else None
    return make_spec(
        task, race_toys.task, contender, lr=0.05, aux_lr=aux_lr, seed=seed, phase="final", steps=steps
    )


def do(executor: LocalWorkers, specs: list[RunSpec]) -> dict[str, RunRecord]:
    done: list[RunRecord] = []
    waiting, flying = list(specs), 0
    while waiting or flying:
        while waiting and flying < executor.slots:
            executor.submit(waiting.pop())
            flying += 1
        done.append(executor.next_record())
        flying -= 1
    assert len(done) == len(specs)
    return {record.key: record for record in done}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("executor")


@pytest.fixture(scope="module")
def workers(folder: Path) -> Iterator[LocalWorkers]:
    """Two workers for all tests, since a process takes seconds to import torch."""
    (folder / "deaths").write_bytes(b"")
    (folder / "chatty.py").write_text(
        "import torch\n"
        "class Chatty(torch.optim.SGD):\n"
        "    def __init__(self, params, lr=0.1):\n"
        "        print('hello from the class', flush=True)\n"
        "        super().__init__(params, lr=lr)\n"
    )
    executor = LocalWorkers(2, folder / "log")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEATHS", str(folder / "deaths"))
        patch.syspath_prepend(folder)
        yield executor
    executor.close()


def test_results_do_not_depend_on_processes(workers: LocalWorkers) -> None:
    specs = [spec(name, seed) for name in ("AdamW", "Muon", "MuAdam") for seed in (1, 2)]
    here = {s.key: train(s) for s in specs}
    there = do(workers, specs)
    assert there.keys() == here.keys()
    for key, record in there.items():
        assert record.hardware["threads"] == 1
        assert (record.train_curve, record.val_curve) == (here[key].train_curve, here[key].val_curve)


def test_what_a_class_prints_or_raises_goes_to_the_log_and_not_into_the_answers(
    workers: LocalWorkers, folder: Path
) -> None:
    prints, raises = spec("chatty:Chatty"), spec("race_toys:RaisesInStep")
    records = do(workers, [prints, raises])
    assert [records[s.key].status for s in (prints, raises)] == ["ok", "failed"]
    log = (folder / "log").read_text()
    assert "hello from the class" in log
    assert "Traceback" in log
    assert "ZeroDivisionError: third step" in log


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
def test_a_run_whose_worker_is_killed_is_repeated_once_and_then_recorded_as_failed(
    workers: LocalWorkers, folder: Path
) -> None:
    (folder / "deaths").write_bytes(b"x")
    repeated, lost, other = spec("race_toys:Dies", 1), spec("race_toys:Dies", 2), spec("SGD")
    assert do(workers, [repeated])[repeated.key].status == "ok"
    assert not (folder / "deaths").read_bytes()  # it did die
    (folder / "deaths").write_bytes(b"xx")
    record = do(workers, [lost])[lost.key]
    assert record.status == "failed"
    assert record.error == "the worker process died in 2 attempts (exit code -9)"
    assert do(workers, [other])[other.key].status == "ok"


def test_a_worker_that_cannot_start_stops_the_race(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    executor = LocalWorkers(1, tmp_path / "log")
    try:
        executor.submit(spec("SGD"))
        with pytest.raises(RaceError, match=r"ended at its start \(exit code 1\)"):
            executor.next_record()
    finally:
        executor.close()
