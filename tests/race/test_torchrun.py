"""Runs as torchrun jobs of two processes, some of which are lost."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from steepest.race import torchrun
from steepest.race.contenders import parse_contender
from steepest.race.engine import Engine
from steepest.race.executors.local import LocalWorkers
from steepest.race.spec import RunSpec, make_spec
from steepest.race.task_text import load_task
from steepest.race.torchrun import perform
from steepest.race.training import train

pytestmark = [
    pytest.mark.jobs,
    pytest.mark.skipif(sys.platform == "win32", reason="gloo and SIGKILL are for others"),
]


class Mortal(torch.optim.SGD):
    """Its second process ends as the files in a folder say; it dies once for each."""

    def __init__(self, params, lr=0.1, folder=""):
        super().__init__(params, lr=lr)
        self.folder = Path(folder)
        if "LOCAL_RANK" in os.environ:
            (self.folder / f"pid-{os.getpid()}").touch()

    def step(self, closure=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        while (self.folder / "wait").exists():
            time.sleep(0.02)
        for file in self.folder.glob("second-*") if os.environ.get("LOCAL_RANK") == "1" else ():
            if file.name == "second-raises":
                raise ZeroDivisionError("only here")
            file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step()


def mortal(folder: Path, processes: int = 2, task: str = "race_toys:task") -> RunSpec:
    contender = parse_contender(f"test_torchrun:Mortal(folder={str(folder)!r})")
    engine = Engine(processes=processes)
    rest = {"lr": 0.02, "aux_lr": None, "seed": 1, "phase": "final", "steps": 4}
    return make_spec(task, load_task(task), contender, engine=engine, **rest)


def wait_until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_job_that_loses_a_process_is_repeated_and_is_the_run_of_one_process_up_to_rounding(
    tmp_path: Path,
) -> None:
    (tmp_path / "second-dies").touch()
    one, two = (perform(mortal(tmp_path, processes, "digits")) for processes in (1, 2))
    assert two.status == "ok", two.error
    assert len(list(tmp_path.glob("pid-*"))) == 4
    assert two.engine["processes"] == 2
    assert [step for step, _ in two.train_curve] == [1, 2, 3, 4]
    for mine, theirs in ((one.train_curve, two.train_curve), (one.val_curve, two.val_curve)):
        assert [loss for _, loss in theirs] == pytest.approx([loss for _, loss in mine], rel=1e-5)
    assert two.metrics["val_accuracy"] == pytest.approx(one.metrics["val_accuracy"], abs=0.01)


def test_what_one_process_raises_is_the_error_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchrun, "REPEATS", 0)
    (tmp_path / "second-raises").touch()
    record = perform(mortal(tmp_path))
    assert (record.status, record.error) == ("failed", "ZeroDivisionError: only here (step 1)")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_worker_takes_its_job_along_and_the_run_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "wait").touch()
    run, workers = mortal(tmp_path), LocalWorkers(1, tmp_path / "log")
    try:
        workers.submit(run)
        wait_until(lambda: len(list(tmp_path.glob("pid-*"))) == 2)
        first = [int(file.name.partition("-")[2]) for file in tmp_path.glob("pid-*")]
        os.kill(workers._busy[0].process.pid, signal.SIGKILL)
        wait_until(lambda: not any(map(is_alive, first)))
        (tmp_path / "wait").unlink()
        record = workers.next_record()
    finally:
        workers.close()
    assert record.status == "ok", (tmp_path / "log").read_text()
    losses = [loss for _, loss in train(mortal(tmp_path, processes=1)).train_curve]
    assert [loss for _, loss in record.train_curve] == pytest.approx(losses, rel=1e-5)
