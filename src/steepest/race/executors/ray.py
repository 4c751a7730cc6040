"""Runs on a Ray cluster: every node that can be reached takes part, and any of them may be lost."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from steepest.race.engine import Engine
from steepest.race.executors.remote import Outcome, do
from steepest.race.provenance import versions
from steepest.race.records import RaceError, RunRecord
from steepest.race.shipping import own_modules
from steepest.race.spec import RunSpec
from steepest.race.training import record_of

ATTEMPTS = 3
PATIENCE = 600.0
"""Seconds that a race waits for a node on which a run fits, when there is none."""
_POLL = 5.0
_ANSWER = 10.0


class RayWorkers:
    """The nodes of a Ray cluster, as its scheduler gives them out.

    A run asks for as many CPUs as it has threads, and for one GPU per process if its device is "cuda". One
    whose worker or node is lost is given to another, up to three times in all, and then recorded as failed.
    The nodes need the same Python, torch and steepest; modules of the user's own are sent to them. Results
    come back to this process, which alone writes records.

    Args:
        engine: how runs are computed.
        log: file for what runs print, tracebacks among it.
        address: "auto" for the cluster that ``RAY_ADDRESS`` or this machine names, ``HOST:6379`` on one of
            its machines, ``ray://HOST:10001`` from outside.
        workers: how many runs at once. Default: as many as fit, following the cluster as it grows or
            shrinks; say a number where a cluster only grows when more is asked for.

    Raises:
        RaceError: ray is not installed, the cluster cannot be reached, or none of its nodes can take a run.
    """

    def __init__(self, engine: Engine, log: Path, address: str = "auto", workers: int | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise RaceError("--executor ray needs ray: pip install 'steepest[ray]'") from None
        if engine.device.startswith("cuda:"):
            raise RaceError(f"device must be cuda on a Ray cluster, which chooses, not {engine.device!r}")
        self._ray: Any = ray
        self._connected = not ray.is_initialized()
        if self._connected:
            _connect(ray, address)
        self._log = log
        self._workers = workers
        self._needs = {"CPU": float(engine.threads * engine.processes)}
        if engine.gpus():
            self._needs["GPU"] = float(engine.gpus())
        self._counted: tuple[float, int] = (-_POLL, 0)
        self._flying: dict[Any, RunSpec] = {}
        self._attempts: dict[str, int] = {}
        try:
            if workers is None and not self.slots:
                raise RaceError(self._too_small())
            self._modules = ray.put(own_modules())
            self._do = self._ray.remote(do).options(
                num_cpus=self._needs["CPU"], num_gpus=self._needs.get("GPU", 0.0), max_retries=0
            )
        except BaseException:
            self.close()
            raise

    @property
    def slots(self) -> int:
        """How many runs fit on the nodes that are alive, or what was asked for."""
        if self._workers is not None:
            return self._workers
        when, count = self._counted
        if time.monotonic() - when >= _POLL:
            count = sum(self._room(node) for node in self._nodes())
            self._counted = (time.monotonic(), count)
        return count

    def submit(self, spec: RunSpec) -> None:
        """Give a run to the cluster."""
        self._attempts[spec.key] = self._attempts.get(spec.key, 0) + 1
        variables = {name: value for name, value in os.environ.items() if name.startswith("STEEPEST_")}
        if data := variables.get("STEEPEST_DATA"):
            variables["STEEPEST_DATA"] = os.path.abspath(data)
        self._flying[self._do.remote(spec.to_dict(), versions(), self._modules, variables)] = spec

    def next_record(self) -> RunRecord:
        """Wait for the next run to end.

        Raises:
            RaceError: a node's software differs, there has been no node for a run for ten minutes, or the
                cluster is gone.
        """
        while True:
            reference = self._wait()
            spec = self._flying.pop(reference)
            try:
                outcome: Outcome = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as error:
                raise RaceError(
                    f"a node of the Ray cluster could not take a run: {_last_line(error)}"
                ) from None
            except self._ray.exceptions.RayError as error:
                self._note(f"{spec.task} {spec.name}, seed {spec.seed}: {_first_line(error)}\n")
                if self._attempts[spec.key] < ATTEMPTS:
                    self.submit(spec)
                    continue
                what = f"lost in {ATTEMPTS} attempts ({type(error).__name__}: {_first_line(error)})"
                return record_of(spec, "failed", error=what)
            self._note(outcome.printed)
            if outcome.refused:
                raise RaceError(outcome.refused)
            return RunRecord.from_json(outcome.record)

    def close(self) -> None:
        """Give up the runs under way and leave the cluster."""
        for reference in self._flying:
            with suppress(Exception):
                self._ray.cancel(reference, force=True)
        self._flying = {}
        if self._connected:
            self._ray.shutdown()

    def _note(self, text: str) -> None:
        with open(self._log, "a", encoding="utf-8") as file:
            file.write(text)

    def _wait(self) -> Any:
        """Return the next run that has ended, however."""
        until = time.monotonic() + PATIENCE
        while True:
            ended, _ = self._ray.wait(list(self._flying), num_returns=1, timeout=_POLL)
            if ended:
                return ended[0]
            if any(self._room(node) for node in self._nodes()):
                until = time.monotonic() + PATIENCE
            elif time.monotonic() >= until:
                raise RaceError(self._too_small())

    def _nodes(self) -> list[Mapping[str, float]]:
        """Return what each node that is alive has in all."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _room(self, node: Mapping[str, float]) -> int:
        """Return how many runs fit on a node."""
        return int(min(node.get(kind, 0.0) // count for kind, count in self._needs.items()))

    def _too_small(self) -> str:
        wanted = _counts(self._needs)
        there = "; ".join(_counts(node) for node in self._nodes()) or "none is alive"
        return f"no node of the Ray cluster can take a run, which needs {wanted}; nodes have: {there}"


def _connect(ray: Any, address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdigit():  # Ray itself would try for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # OSError, ConnectionError, ValueError, RuntimeError, and grpc's own
        raise RaceError(
            f"cannot reach a Ray cluster at --address {address}: {_first_line(error)} "
            "(`ray start --head` starts one)"
        ) from None


def _counts(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{resources.get(kind, 0.0):g} {kind}" for kind in ("CPU", "GPU"))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
