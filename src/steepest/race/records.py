"""What a finished run leaves behind, and the file that keeps it.

A race appends one JSON line per finished run to ``records.jsonl``, flushed and synced, so that whatever
kills the race loses at most the runs that were under way. A run is found again by its key, a hash of all
that determines its result; nothing else decides what has to be run.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TextIO

FILE_NAME = "records.jsonl"
CURVE_POINTS = 100

Curve = tuple[tuple[int, float], ...]


class RaceError(Exception):
    """A race cannot go on (or start); the message is one line meant for the person who started it."""


@dataclass(frozen=True)
class RunRecord:
    """One finished run.

    ``phase`` is ``"sweep"`` (learning rate search, on the tuning seed), ``"tune"`` (further arguments, on
    the same seed) or ``"final"`` (paired seeds at the best); ``protocol`` is ``"fair"`` or ``"paper"``.
    ``status`` is ``"ok"``, ``"diverged"`` (a non-finite loss or gradient), ``"stopped"`` (a hopeless run of
    a search, see `steepest.race.hopeless`) or ``"failed"`` (an exception); ``error`` tells in one line how.
    ``final_loss`` is the tuning criterion, the validation loss after the last step; it is infinite unless
    the status is ``"ok"``. ``seconds`` is the time in forward, backward and optimizer, without data and
    evaluation; ``step_ms`` and ``fwd_bwd_ms`` are medians over steps. ``aux_lr`` is the auxiliary AdamW's
    learning rate of a hybrid, else ``None``. ``engine`` holds the options of `steepest.race.engine.Engine`.
    ``peak_memory_bytes`` is the most that tensors took on a CUDA device, ``None`` elsewhere.
    ``twin_curve`` are the training losses in the other coordinates of a task about invariance.
    """

    key: str
    task: str
    task_version: str
    optimizer: str
    target: str
    kwargs: Mapping[str, Any]
    lr: float
    aux_lr: float | None
    seed: int
    phase: str
    steps: int
    status: str
    error: str | None = None
    train_curve: Curve = ()
    val_curve: Curve = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    final_loss: float = math.inf
    seconds: float = 0.0
    step_ms: float | None = None
    fwd_bwd_ms: float | None = None
    state_bytes: int = 0
    param_count: int = 0
    started: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    preset: str = "cpu"
    protocol: str = "fair"
    engine: Mapping[str, Any] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    twin_curve: Curve = ()

    def to_json(self) -> str:
        """Return the record as one line of valid JSON; non-finite numbers become strings: inf, -inf, nan."""
        return json.dumps(_encode(asdict(self)), allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> RunRecord:
        """Read what `to_json` wrote; fields this version does not know are ignored, so newer files load."""
        raw = json.loads(line)
        if not isinstance(raw, dict):
            raise ValueError("a record must be a JSON object")
        known = {f.name for f in fields(cls)}
        values = {name: value for name, value in raw.items() if name in known}
        for name in ("train_curve", "val_curve", "twin_curve"):
            values[name] = tuple((int(step), float(loss)) for step, loss in values.get(name, ()))
        values["metrics"] = {name: float(value) for name, value in values.get("metrics", {}).items()}
        values["final_loss"] = float(values.get("final_loss", math.inf))
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"incomplete record: {error}") from None


def run_key(**determines: Any) -> str:
    """Hash everything that determines a run's result; equal arguments give equal keys in any process."""
    text = json.dumps(_encode(determines), sort_keys=True, separators=(",", ":"), default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def thin(curve: Iterable[tuple[int, float]], points: int = CURVE_POINTS) -> Curve:
    """Keep at most `points` of a curve, evenly spaced, always with its first and last."""
    full = tuple(curve)
    if len(full) <= points:
        return full
    stride = (len(full) - 1) / (points - 1)
    return tuple(full[round(i * stride)] for i in range(points))


def _encode(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _encode(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encode(item) for item in value]
    return value


def read_records(folder: str | Path) -> list[RunRecord]:
    """Return the records of a folder in file order, one per key (the latest). No file is no records.

    A line that cannot be read (the last one of a killed race) is passed over.

    Raises:
        RaceError: the file exists and cannot be opened.
    """
    path = Path(folder) / FILE_NAME
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RaceError(f"cannot read {path}: {error.strerror}") from None
    found: dict[str, RunRecord] = {}
    for line in lines:
        try:
            record = RunRecord.from_json(line.decode())
        except (ValueError, TypeError, AttributeError):
            continue
        found[record.key] = record
    return list(found.values())


class RecordStore:
    """The records of one folder, opened for appending by one race at a time.

    Args:
        folder: made if missing. Holds ``records.jsonl`` and ``race.lock``.

    Raises:
        RaceError: the folder cannot be made or written, or another live race holds it. The lock belongs to
            the process, so that of a dead one does not block.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self.folder / "race.lock")
            self._file = open(self.folder / FILE_NAME, "ab+", buffering=0)  # noqa: SIM115
            self._repair()
        except OSError as error:
            raise RaceError(f"cannot write to output folder {self.folder}: {error.strerror}") from None
        self.records = {record.key: record for record in read_records(self.folder)}

    def append(self, record: RunRecord) -> None:
        """Add a record for good: when this returns, it is on disk.

        Raises:
            RaceError: it could not be written (a full disk); the file is left as it was.
        """
        end = self._file.seek(0, os.SEEK_END)
        line = record.to_json().encode() + b"\n"
        try:
            while line:  # unbuffered: a nearly full disk takes a part of the line, then raises
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(end)
            raise RaceError(f"cannot write {self.folder / FILE_NAME}: {error.strerror}") from None
        self.records[record.key] = record

    def forget(self, unwanted: Callable[[RunRecord], bool]) -> None:
        """Leave records out of `records`: their runs are done again, and the new result supersedes."""
        self.records = {key: record for key, record in self.records.items() if not unwanted(record)}

    def close(self) -> None:
        """Close the file and let other races in."""
        self._file.close()
        self._lock.close()

    def __enter__(self) -> RecordStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _repair(self) -> None:
        """Cut a half-written last line, or end a whole one whose newline was lost."""
        self._file.seek(0)
        content = self._file.read()
        if not content or content.endswith(b"\n"):
            return
        start = content.rfind(b"\n") + 1
        try:
            RunRecord.from_json(content[start:].decode())
        except (ValueError, TypeError, AttributeError):
            self._file.truncate(start)
        else:
            self._file.write(b"\n")


def _lock(path: Path) -> TextIO:
    file = open(path, "a+")  # noqa: SIM115 (held open as long as the lock)
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        holder = file.read().strip()
        file.close()
        who = f" (process {holder})" if holder else ""
        raise RaceError(
            f"another race{who} is writing to {path.parent}; wait for it or use another --out"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
