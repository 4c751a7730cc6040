from __future__ import annotations

import errno
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from steepest.race.records import FILE_NAME, RaceError, RecordStore, RunRecord, read_records, run_key, thin

RECORD = RunRecord(
    key="k0",
    task="toy",
    task_version="1",
    optimizer="SGD",
    target="torch.optim:SGD",
    kwargs={"momentum": 0.9},
    lr=0.1,
    aux_lr=None,
    seed=1,
    phase="final",
    steps=2,
    status="ok",
    train_curve=((1, 2.0), (2, 1.0)),
    val_curve=((0, 3.0), (2, 1.5)),
    metrics={"val_loss": 1.5},
    final_loss=1.5,
)


def records(n: int) -> list[RunRecord]:
    return [replace(RECORD, key=f"k{i}", seed=i) for i in range(n)]


def test_a_record_survives_the_file_exactly() -> None:
    assert RunRecord.from_json(RECORD.to_json()) == RECORD


def test_non_finite_numbers_are_valid_json_and_come_back() -> None:
    diverged = replace(
        RECORD, final_loss=math.inf, train_curve=((1, math.nan),), metrics={"val_loss": -math.inf}
    )
    line = diverged.to_json()
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    again = RunRecord.from_json(line)
    assert again.final_loss == math.inf
    assert again.metrics == {"val_loss": -math.inf}
    assert math.isnan(again.train_curve[0][1])


def test_a_field_of_a_newer_version_is_ignored_and_a_missing_one_is_an_error() -> None:
    raw = json.loads(RECORD.to_json())
    assert RunRecord.from_json(json.dumps({**raw, "novelty": 1})) == RECORD
    del raw["task"]
    with pytest.raises(ValueError, match="task"):
        RunRecord.from_json(json.dumps(raw))


def test_store_keeps_what_is_appended_and_the_latest_of_one_key(tmp_path: Path) -> None:
    with RecordStore(tmp_path / "new" / "folder") as store:
        for record in records(3):
            store.append(record)
        store.append(replace(RECORD, final_loss=7.0))
        in_memory = list(store.records.values())
    read = read_records(tmp_path / "new" / "folder")
    assert read == in_memory
    assert [r.key for r in read] == ["k0", "k1", "k2"]
    assert read[0].final_loss == 7.0


def test_every_truncation_of_the_last_line_loses_that_line_at_most(tmp_path: Path) -> None:
    lines = [record.to_json().encode() + b"\n" for record in records(3)]
    whole = b"".join(lines)
    path = tmp_path / FILE_NAME
    for cut in range(1, len(lines[-1]) + 1, 7):
        path.write_bytes(whole[:-cut])
        expected = records(3) if cut == 1 else records(2)
        assert read_records(tmp_path) == expected
        with RecordStore(tmp_path) as store:
            assert list(store.records.values()) == expected
            store.append(replace(RECORD, key="next"))
        assert read_records(tmp_path) == [*expected, replace(RECORD, key="next")]
        assert path.read_bytes().endswith(b"\n")


def test_a_damaged_line_in_the_middle_costs_only_itself(tmp_path: Path) -> None:
    first, second, third = records(3)
    (tmp_path / FILE_NAME).write_text(
        f"{first.to_json()}\n{second.to_json()[:40]}\n\xff\n{third.to_json()}\n"
    )
    assert read_records(tmp_path) == [first, third]


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk:
        def __init__(self, file) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            if len(data) > 20:
                return self.file.write(data[: len(data) - 20])
            raise OSError(errno.ENOSPC, "No space left on device")

        def __getattr__(self, name: str):
            return getattr(self.file, name)

    with RecordStore(tmp_path) as store:
        store.append(records(1)[0])
        monkeypatch.setattr(store, "_file", FullDisk(store._file))
        with pytest.raises(RaceError, match="No space left"):
            store.append(records(2)[1])
        assert list(store.records) == ["k0"]
    assert (tmp_path / FILE_NAME).read_text() == RECORD.to_json().replace('"seed":1', '"seed":0') + "\n"


def test_one_race_at_a_time_and_a_dead_ones_lock_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "race.lock").write_text("999999")
    message = r"another race \(process \d+\) is writing to"
    with RecordStore(tmp_path), pytest.raises(RaceError, match=message):
        RecordStore(tmp_path)
    RecordStore(tmp_path).close()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RaceError, match="cannot write to output folder") as caught:
        RecordStore(tmp_path / "file" / "folder")
    assert "\n" not in str(caught.value)


def test_keys_depend_on_every_argument_and_on_nothing_else() -> None:
    base = {"task": "toy", "kwargs": {"a": 1, "b": (0.9, 0.99)}, "lr": 0.1, "aux_lr": None}
    assert run_key(**base) == run_key(**dict(reversed(base.items())))
    assert run_key(**base) == run_key(**{**base, "kwargs": {"b": [0.9, 0.99], "a": 1}})
    changed = [{**base, "lr": 0.2}, {**base, "aux_lr": 0.1}, {**base, "kwargs": {"a": 2, "b": (0.9, 0.99)}}]
    assert len({run_key(**case) for case in (base, *changed)}) == 4


def test_thinning_keeps_the_ends() -> None:
    curve = [(i, float(i)) for i in range(1001)]
    short = thin(curve, 11)
    assert short == tuple((i, float(i)) for i in range(0, 1001, 100))
    assert thin(curve[:5], 11) == tuple(curve[:5])
