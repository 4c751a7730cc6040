"""Runs in worker processes on this machine."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

from steepest.race.records import RaceError, RunRecord
from steepest.race.spec import RunSpec
from steepest.race.training import record_of
from steepest.race.worker import READY

ATTEMPTS = 2


class _Worker:
    """One worker process; a thread of ours turns its output into events."""

    def __init__(
        self, log: Path, events: queue.Queue[tuple[_Worker, str | None]], place: int, gpus: Sequence[str]
    ) -> None:
        importable = os.pathsep.join(filter(None, sys.path))
        environment = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=importable)
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        self.place = place
        with open(log, "ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "steepest.race.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
                env=environment,
                start_new_session=True,  # Ctrl-C is for the race, which then closes its workers
            )
        self.spec: RunSpec | None = None
        self.ready = False
        self._events = events
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, spec: RunSpec) -> None:
        self.spec = spec
        assert self.process.stdin is not None
        with suppress(OSError):  # it just died; the end of its output tells
            self.process.stdin.write(json.dumps(spec.to_dict()) + "\n")
            self.process.stdin.flush()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._events.put((self, line))
        self._events.put((self, None))

    def stop(self, patience: float = 0.0) -> None:
        """End the process, after `patience` seconds in which it may end by itself."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()


class LocalWorkers:
    """Worker processes on this machine, started when first needed.

    A run whose worker dies is given to a new worker once, and then recorded as failed.

    Args:
        workers: how many at once, at least 1.
        log: file for what workers print, tracebacks of failed runs among it.
        gpus: how many each run takes. Workers are given them in turn; where there are too few for all,
            workers share.
    """

    def __init__(self, workers: int, log: Path, gpus: int = 0) -> None:
        self.slots = workers
        self._log = log
        self._gpus = gpus
        self._events: queue.Queue[tuple[_Worker, str | None]] = queue.Queue()
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []
        self._attempts: dict[str, int] = {}

    def submit(self, spec: RunSpec) -> None:
        """Give a run to an idle worker, or to a new one."""
        worker = self._idle.pop() if self._idle else self._new_worker()
        self._busy.append(worker)
        self._attempts[spec.key] = self._attempts.get(spec.key, 0) + 1
        worker.send(spec)

    def next_record(self) -> RunRecord:
        """Wait for the next run to end.

        Raises:
            RaceError: a worker process died before it could take a run.
        """
        while True:
            worker, line = self._events.get()
            if line is None:
                record = self._lost(worker)
                if record is not None:
                    return record
            elif line.strip() == READY:
                worker.ready = True
            else:
                self._busy.remove(worker)
                self._idle.append(worker)
                worker.spec = None
                return RunRecord.from_json(line)

    def close(self) -> None:
        """Kill the workers."""
        for worker in (*self._idle, *self._busy):
            worker.stop()
        self._idle, self._busy = [], []

    def _new_worker(self) -> _Worker:
        taken = {worker.place for worker in (*self._idle, *self._busy)}
        place = next(i for i in range(self.slots) if i not in taken)
        gpus = gpus_of(place, self._gpus, visible_gpus()) if self._gpus else []
        return _Worker(self._log, self._events, place, gpus)

    def _lost(self, worker: _Worker) -> RunRecord | None:
        """Clear away a dead worker; repeat its run, or return the record of a failed one."""
        for workers in (self._idle, self._busy):
            if worker in workers:
                workers.remove(worker)
        worker.stop(patience=5.0)  # its output has ended: its own exit code says why
        spec, code = worker.spec, worker.process.returncode
        if not worker.ready:
            raise RaceError(f"a worker process ended at its start (exit code {code}); see {self._log}")
        if spec is None:
            return None
        if self._attempts[spec.key] < ATTEMPTS:
            self.submit(spec)
            return None
        error = f"the worker process died in {ATTEMPTS} attempts (exit code {code})"
        return record_of(spec, "failed", error=error)


def visible_gpus() -> list[str]:
    """Return the CUDA devices that processes of this machine may use, as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [str(index) for index in range(torch.cuda.device_count())]
    return [name.strip() for name in chosen.split(",") if name.strip()]


def gpus_of(place: int, count: int, visible: Sequence[str]) -> Sequence[str]:
    """Return the devices of the worker at a place, `count` of them; nothing if there are not as many."""
    if len(visible) < count:
        return []
    start = place % (len(visible) // count) * count
    return visible[start : start + count]
