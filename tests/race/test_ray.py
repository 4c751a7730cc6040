"""Runs on a Ray cluster of two nodes, which lose processes, a node, and the race itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import race_toys

from steepest.race.contenders import parse_contender
from steepest.race.engine import Engine
from steepest.race.executors.ray import RayWorkers
from steepest.race.records import RaceError, RunRecord, read_records
from steepest.race.spec import RunSpec, make_spec
from steepest.race.training import train

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.jobs,
    pytest.mark.skipif(sys.platform != "linux", reason="Ray's clusters of one machine are for Linux"),
]

MORTALS = """
import os, signal, time
from pathlib import Path
import helping
import torch

class Dies(torch.optim.SGD):
    "Takes its process with it as often as there are files in a folder."
    def __init__(self, params, lr=0.1, folder=""):
        super().__init__(params, lr=lr)
        self.folder = Path(folder)
    def step(self, closure=None):
        for file in self.folder.glob("death*"):
            file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step()

class Waits(torch.optim.SGD):
    "Says that it is there, and takes no step before it may."
    def __init__(self, params, lr=0.1, folder="", name=""):
        super().__init__(params, lr=lr)
        self.folder, self.name = Path(folder), name
    def step(self, closure=None):
        print("hello from", self.name, os.environ.get("STEEPEST_WORD"), helping.WORD, flush=True)
        (self.folder / f"{self.name}.{os.getpid()}").touch()
        while not (self.folder / "go").exists():
            time.sleep(0.02)
        return super().step()
"""


class Cluster:
    def __init__(self) -> None:
        script = Path(__file__).with_name("ray_cluster.py")
        self.process = subprocess.Popen(
            [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.address = self._line()

    def do(self, command: str) -> None:
        assert self.process.stdin is not None
        print(command, file=self.process.stdin, flush=True)
        assert self._line() == "done"

    def close(self) -> None:
        self.process.communicate(timeout=60)

    def _line(self) -> str:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line.strip() == "done" or line[0].isdigit():
                return line.strip()
        raise AssertionError("the cluster did not start")


@pytest.fixture(scope="module")
def own_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "mortals.py").write_text(MORTALS)
    (folder / "helping").mkdir()
    (folder / "helping" / "__init__.py").write_text("from helping.words import WORD\n")
    (folder / "helping" / "words.py").write_text("WORD = 'sent along'\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("STEEPEST_WORD", "of the caller")
        import mortals  # noqa: F401  # pyright: ignore[reportMissingImports]

        yield folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "workers.log"


@pytest.fixture(scope="module")
def workers(cluster: Cluster, own_modules: Path, log: Path) -> Iterator[RayWorkers]:
    executor = RayWorkers(Engine(), log, cluster.address)
    yield executor
    executor.close()


def spec(optimizer: str, seed: int = 1, steps: int = 6, lr: float = 0.05, phase: str = "final") -> RunSpec:
    contender = parse_contender(optimizer)
    aux_lr = 0.01 if contender.is_hybrid() else None
    rest = {"lr": lr, "aux_lr": aux_lr, "seed": seed, "phase": phase, "steps": steps}
    return make_spec("race_toys:task", race_toys.task, contender, **rest)


def do(executor: RayWorkers, specs: list[RunSpec]) -> dict[str, RunRecord]:
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


def wait_until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def losses(record: RunRecord) -> tuple:
    return record.status, record.train_curve, record.val_curve, record.final_loss, record.metrics


def test_results_are_those_of_this_process_bit_for_bit(workers: RayWorkers) -> None:
    assert workers.slots == 2
    specs = [spec(name, seed) for name in ("AdamW", "MuAdam") for seed in (1, 2)]
    here = {s.key: train(s) for s in specs}
    there = do(workers, specs)
    assert {key: losses(record) for key, record in there.items()} == {
        key: losses(record) for key, record in here.items()
    }
    assert all(record.hardware["threads"] == 1 for record in there.values())


def test_a_node_killed_in_the_middle_loses_only_its_run_which_is_repeated(
    cluster: Cluster, workers: RayWorkers, log: Path, tmp_path: Path
) -> None:
    specs = [spec(f"mortals:Waits(folder={str(tmp_path)!r}, name={name!r})") for name in ("a", "b")]
    for one in specs:
        workers.submit(one)
    wait_until(lambda: list(tmp_path.glob("a.*")) and list(tmp_path.glob("b.*")))
    cluster.do("kill")
    (tmp_path / "go").touch()
    records = [workers.next_record() for _ in specs]
    assert {record.key for record in records} == {one.key for one in specs}
    assert len(list(tmp_path.glob("[ab].*"))) == 3  # one of them was started a second time
    assert [losses(record) for record in records] == [losses(train(spec("torch.optim:SGD")))] * 2
    assert "hello from a of the caller sent along" in log.read_text()
    wait_until(lambda: workers.slots == 1)
    cluster.do("add")
    wait_until(lambda: workers.slots == 2)


def test_a_run_whose_worker_is_killed_again_and_again_is_recorded_as_failed(
    workers: RayWorkers, log: Path, tmp_path: Path
) -> None:
    dies, raises = spec(f"mortals:Dies(folder={str(tmp_path)!r})"), spec("race_toys:RaisesInStep")
    for death in range(3):
        (tmp_path / f"death{death}").touch()
    records = do(workers, [dies, raises])
    assert records[dies.key].status == "failed"
    assert (records[dies.key].error or "").startswith("lost in 3 attempts (WorkerCrashedError")
    assert records[raises.key].error == "ZeroDivisionError: third step (step 3)"
    assert "ZeroDivisionError: third step" in log.read_text()
    assert not list(tmp_path.glob("death*"))


def test_a_node_that_would_do_another_run_is_refused(workers: RayWorkers) -> None:
    workers.submit(replace(spec("SGD"), key="of other code"))
    with pytest.raises(RaceError, match=r"^node .* would not do the same run: its code of steepest"):
        workers.next_record()


def test_a_race_that_is_killed_goes_on_with_what_it_had(cluster: Cluster, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "steepest", "race", "race_toys:task", "--optimizers", "SGD"]
    command += ["--lr-grid", "0.01,0.03", "--seeds", "2", "--steps", "40", "--no-early-stop"]
    command += ["--out", str(tmp_path), "--executor", "ray", "--address", cluster.address]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
    race = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(read_records(tmp_path)) >= 3)
    race.send_signal(signal.SIGKILL)
    race.wait()
    kept = read_records(tmp_path)
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert again.returncode == 0, again.stderr
    records = {record.key: record for record in read_records(tmp_path)}
    assert len(records) > len(kept)
    assert all(records[record.key] == record for record in kept)  # nothing was done twice
    for record in records.values():
        one = spec(record.optimizer, record.seed, record.steps, lr=record.lr, phase=record.phase)
        assert (one.key, losses(record)) == (record.key, losses(train(one)))


def test_what_cannot_be_given_is_told_at_once(
    workers: RayWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RaceError, match=r"needs 2 CPU, 0 GPU; nodes have: 1 CPU, 0 GPU; 1 CPU, 0 GPU"):
        RayWorkers(Engine(threads=2), tmp_path / "log")
    with pytest.raises(RaceError, match=r"needs 1 CPU, 1 GPU"):
        RayWorkers(Engine(device="cuda"), tmp_path / "log")
    with pytest.raises(RaceError, match=r"device must be cuda on a Ray cluster"):
        RayWorkers(Engine(device="cuda:1"), tmp_path / "log")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(
        RaceError, match=r"cannot reach a Ray cluster at --address ray://127.0.0.1:9: .*refused"
    ):
        RayWorkers(Engine(), tmp_path / "log", "ray://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RaceError, match=r"pip install 'steepest\[ray\]'"):
        RayWorkers(Engine(), tmp_path / "log")
