"""From the words of a command to the place where its runs are done."""

from __future__ import annotations

import os
from pathlib import Path

from steepest.race.engine import Engine
from steepest.race.executors.base import Executor
from steepest.race.executors.local import LocalWorkers, visible_gpus
from steepest.race.records import RaceError
from steepest.spelling import suggest

KINDS = ("local", "ray")


def make_executor(
    kind: str, engine: Engine, log: Path, *, address: str | None = None, workers: int | None = None
) -> Executor:
    """Return the executor of a name, ready to take runs.

    Args:
        kind: "local" for processes of this machine, "ray" for a Ray cluster.
        engine: how runs are computed: what one needs.
        log: file for what runs print.
        address: of the cluster; None is "auto". Not for "local".
        workers: how many runs at once. Default: as many as the cores, GPUs or nodes hold.

    Raises:
        RaceError: as `check_executor`, or it cannot start.
    """
    check_executor(kind, address)
    if kind == "ray":
        from steepest.race.executors.ray import RayWorkers

        return RayWorkers(engine, log, address=address or "auto", workers=workers)
    return LocalWorkers(workers or local_workers(engine), log, gpus=engine.gpus())


def check_executor(kind: str, address: str | None = None) -> None:
    """Refuse, before anything starts, a kind that there is not, and an address for this machine.

    Raises:
        RaceError: with what is allowed.
    """
    if kind not in KINDS:
        hint = suggest(kind, list(KINDS)) or f"; choose from {', '.join(KINDS)}"
        raise RaceError(f"unknown --executor {kind!r}{hint}")
    if kind == "local" and address is not None:
        raise RaceError(f"--address {address} is for --executor ray; this race is local")


def local_workers(engine: Engine) -> int:
    """Return how many runs this machine holds at once."""
    if engine.device == "cuda":
        return max(1, len(visible_gpus()) // engine.processes)
    if engine.device != "cpu":
        return 1
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, cores // (engine.threads * engine.processes))
