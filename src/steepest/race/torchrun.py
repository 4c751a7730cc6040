"""A run done where it is asked for: in this process, or as a `torchrun` job of several on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from steepest.race.records import RunRecord
from steepest.race.spec import RunSpec
from steepest.race.training import record_of, train

ATTEMPTS = 2
SPEC = "spec.json"


def perform(spec: RunSpec) -> RunRecord:
    """Do a run on as many processes as its engine says; see `steepest.race.parallel`.

    A job that ends without a record (a process was killed) is repeated once, then recorded as failed.
    """
    if spec.engine.processes == 1:
        return train(spec)
    code = 0
    for _ in range(ATTEMPTS):
        with tempfile.TemporaryDirectory(prefix="steepest-run-") as folder:
            code = _job(spec, Path(folder))
            record = _record(Path(folder), code)
            if record is not None:
                return record
    error = f"the torchrun job ended without a record in {ATTEMPTS} attempts (exit code {code})"
    return record_of(spec, "failed", error=error)


def _job(spec: RunSpec, folder: Path) -> int:
    """Run `torchrun` until it ends; return its exit code."""
    (folder / SPEC).write_text(json.dumps(spec.to_dict()))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(spec.engine.processes), "-m", "steepest.race.rank", str(folder)]
    environment = dict(
        os.environ,
        OMP_NUM_THREADS=str(spec.engine.threads),
        PYTHONPATH=os.pathsep.join(filter(None, sys.path)),
    )
    # Its standard input is a lifeline, which ends with this process, however it ends; see `rank`.
    job = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
    try:
        return job.wait()
    except BaseException:
        job.terminate()
        with suppress(subprocess.TimeoutExpired):
            job.wait(10)
        job.kill()
        raise
    finally:
        assert job.stdin is not None
        job.stdin.close()


def _record(folder: Path, code: int) -> RunRecord | None:
    """Return the first process's record, or if the job failed, that of the process which failed first."""
    records: list[tuple[float, RunRecord]] = []
    for file in sorted(folder.glob("record-*.json")):
        with suppress(ValueError, OSError):
            records.append((file.stat().st_mtime, RunRecord.from_json(file.read_text())))
    if code:
        records = [(when, record) for when, record in records if record.status == "failed"]
        return min(records, key=lambda item: item[0])[1] if records else None
    return records[0][1] if records else None
