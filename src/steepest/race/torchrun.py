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

REPEATS = 1
SPEC = "spec.json"
RECORD = "record-{time}-{rank}.json"
"""``time`` in nanoseconds; what failed first is the reason for what failed later."""


def perform(spec: RunSpec) -> RunRecord:
    """Do a run on as many processes as its engine says; see `steepest.race.parallel`.

    A job that fails is repeated once: to the processes that are left, one that was killed looks like an error
    of their own.
    """
    if spec.engine.processes == 1:
        return train(spec)
    record = _attempt(spec)
    for _ in range(REPEATS):
        if record.status == "failed":
            record = _attempt(spec)
    return record


def _attempt(spec: RunSpec) -> RunRecord:
    with tempfile.TemporaryDirectory(prefix="steepest-run-") as folder:
        code = _job(spec, Path(folder))
        record = _record(Path(folder), code)
    what = f"the torchrun job ended without a record (exit code {code})"
    return record or record_of(spec, "failed", error=what)


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
    files = sorted(folder.glob(RECORD.format(time="*", rank="*")))  # by time
    records = [RunRecord.from_json(file.read_text()) for file in files]
    return next((record for record in records if not code or record.status == "failed"), None)
