from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import race_toys

from steepest.race.contenders import parse_contender
from steepest.race.engine import Engine
from steepest.race.executors import local, remote
from steepest.race.executors.choice import check_executor, local_workers, make_executor
from steepest.race.executors.local import LocalWorkers, gpus_of, visible_gpus
from steepest.race.provenance import versions
from steepest.race.records import RaceError, RunRecord
from steepest.race.shipping import LIMIT, install_modules, own_modules
from steepest.race.spec import RunSpec, make_spec
from steepest.race.training import train


def spec(optimizer: str) -> RunSpec:
    rest = {"lr": 0.05, "aux_lr": None, "seed": 1, "phase": "final", "steps": 4}
    return make_spec("race_toys:task", race_toys.task, parse_contender(optimizer), **rest)


def test_what_is_asked_for_wrongly_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(RaceError, match=r"unknown --executor 'rya'; did you mean 'ray'\?"):
        check_executor("rya")
    with pytest.raises(RaceError, match=r"unknown --executor 'slurm'; choose from local, ray"):
        check_executor("slurm")
    with pytest.raises(RaceError, match=r"--address auto is for --executor ray; this race is local"):
        make_executor("local", Engine(), tmp_path / "log", address="auto")


def test_workers_are_as_many_as_the_machine_holds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(12)), raising=False)
    assert local_workers(Engine()) == 12
    assert local_workers(Engine(threads=2, processes=3)) == 2
    assert local_workers(Engine(threads=99)) == 1
    assert local_workers(Engine(device="mps")) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5, 6,7,9")
    assert visible_gpus() == ["4", "5", "6", "7", "9"]
    assert local_workers(Engine(device="cuda")) == 5
    assert local_workers(Engine(device="cuda", processes=2)) == 2
    assert local_workers(Engine(device="cuda:1")) == 1
    executor = make_executor("local", Engine(), tmp_path / "log", workers=3)
    assert (type(executor), executor.slots) == (LocalWorkers, 3)


def test_workers_take_gpus_in_turn_and_share_where_there_are_too_few() -> None:
    devices = ["0", "1", "2", "3", "4"]
    assert [gpus_of(place, 2, devices) for place in range(3)] == [["0", "1"], ["2", "3"], ["0", "1"]]
    assert [gpus_of(place, 1, devices[:1]) for place in range(2)] == [["0"], ["0"]]
    assert gpus_of(0, 2, ["0"]) == []


def test_a_worker_sees_its_gpus_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr(local, "_Worker", _Started(seen))
    executor = LocalWorkers(2, tmp_path / "log", gpus=1)
    for optimizer in ("SGD", "AdamW"):
        executor.submit(spec(optimizer))
    assert seen == [(0, ["3"]), (1, ["5"])]


class _Started:
    def __init__(self, seen: list) -> None:
        self.seen = seen

    def __call__(self, log: Path, events: object, place: int, gpus: list[str]) -> _Started:
        self.seen.append((place, gpus))
        worker = _Started(self.seen)
        worker.place = place
        return worker

    place = -1

    def send(self, spec: RunSpec) -> None:
        pass


def test_own_modules_are_sent_whole_and_installed_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "sent_package"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__init__.py").write_text("from sent_package import inner\n")
    (package / "inner.py").write_text("WORD = 'hello'\n")
    (package / "lazy.py").write_text("")
    (package / "words.txt").write_text("words")
    (package / "__pycache__" / "old.pyc").write_bytes(b"")
    (tmp_path / "sent_file.py").write_text("import sent_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    import sent_file  # noqa: F401  # pyright: ignore[reportMissingImports]

    files = own_modules()
    assert {name for name in files if name.startswith("sent_")} == {
        "sent_file.py",
        "sent_package/__init__.py",
        "sent_package/inner.py",
        "sent_package/lazy.py",
        "sent_package/words.txt",
    }
    assert "race_toys.py" in files
    assert not any(name.startswith(("torch/", "steepest/", "numpy/", "os.py")) for name in files)

    for name in ("sent_file", "sent_package", "sent_package.inner"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])
    install_modules(files)
    import sent_package  # pyright: ignore[reportMissingImports]

    assert sent_package.inner.WORD == "hello"
    assert Path(str(sent_package.__file__)) != package / "__init__.py"
    for name in ("sent_package", "sent_package.inner"):
        monkeypatch.delitem(sys.modules, name)


def test_data_beside_modules_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "with_data").mkdir()
    (tmp_path / "with_data" / "__init__.py").write_text("")
    with open(tmp_path / "with_data" / "big.bin", "wb") as file:
        file.truncate(LIMIT + 1)
    monkeypatch.syspath_prepend(tmp_path)
    import with_data  # noqa: F401  # pyright: ignore[reportMissingImports]

    with pytest.raises(RaceError, match=r"more than 100 MiB; keep data out of .*with_data"):
        own_modules()
    del sys.modules["with_data"]


def test_a_run_done_elsewhere_takes_the_callers_words_and_sends_back_what_it_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_installed", True)
    monkeypatch.setenv("STEEPEST_DATA", "of this machine")
    monkeypatch.setenv("STEEPEST_WORD", "")
    monkeypatch.setattr(sys, "stderr", open(2, "w", closefd=False))  # noqa: SIM115 (pytest's goes elsewhere)
    missing = {"STEEPEST_DATA": str(tmp_path / "missing"), "STEEPEST_WORD": "said"}
    run = spec("race_toys:RaisesInStep")
    outcome = remote.do(run.to_dict(), versions(), {}, missing)
    assert "ZeroDivisionError: third step" in outcome.printed
    assert RunRecord.from_json(outcome.record).status == "failed"
    assert (os.environ["STEEPEST_DATA"], os.environ["STEEPEST_WORD"]) == ("of this machine", "said")
    outcome = remote.do(spec("SGD").to_dict(), versions(), {}, {"STEEPEST_DATA": str(tmp_path)})
    assert RunRecord.from_json(outcome.record).train_curve == train(spec("SGD")).train_curve
    assert os.environ["STEEPEST_DATA"] == str(tmp_path)


def test_a_machine_with_other_software_says_which() -> None:
    raw = {**spec("SGD").to_dict(), "key": "another"}
    outcome = remote.do(raw, {**versions(), "torch": "0.4.1"}, {}, {})
    assert outcome.record == ""
    assert f"would not do the same run: torch {versions()['torch']} instead of 0.4.1" in outcome.refused
    raw = {**raw, "task": "not_there:task"}
    assert "cannot load task 'not_there:task'" in remote.do(raw, versions(), {}, {}).refused
