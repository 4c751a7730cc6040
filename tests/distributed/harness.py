"""Worker processes that stay: importing torch costs seconds, a job inside a warm process milliseconds.

``run(world, function, *args)`` calls a module-level function of a test module on every rank of a gloo group
and returns what each rank returned. The function may use ``torch.distributed`` freely; its arguments and
results are pickled. Workers are forked from a process that has imported torch and done nothing else.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Collection
from multiprocessing.connection import Connection, wait
from typing import Any

GRACE = 5.0
"""Seconds the other ranks have, once one has failed."""
STARTING = multiprocessing.get_context("forkserver")
STARTING.set_forkserver_preload(
    [
        "pytest",
        "torch._dynamo",  # which the first step of any optimizer imports
        "torch.distributed.checkpoint.state_dict",
        "torch.distributed.fsdp",
        "torch.distributed.tensor.parallel",
        "steepest.distributed",
    ]
)


class RankFailed(AssertionError):
    """A job raised, or never answered, on some ranks."""


class _Worker:
    """One process, and the connection to it."""

    def __init__(self) -> None:
        self.connection, theirs = STARTING.Pipe()
        self.process = STARTING.Process(target=_serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class _Pool:
    """Workers that form one group.

    Every size has workers of its own: torch caches meshes by their ranks, and with them groups that are gone.
    """

    def __init__(self, world: int) -> None:
        self.directory = tempfile.mkdtemp(prefix="steepest-")
        self.workers = [_Worker() for _ in range(world)]

    def stop(self) -> None:
        """End all workers."""
        while self.workers:
            self.workers.pop().stop()
        shutil.rmtree(self.directory, ignore_errors=True)


_pools: dict[int, _Pool] = {}


@atexit.register
def _close() -> None:
    while _pools:
        _pools.popitem()[1].stop()


def run(
    world: int, function: Callable[..., Any], *args: Any, timeout: float = 240, lost: Collection[int] = ()
) -> list[Any]:
    """Return ``function(*args)`` of every rank of a group of ``world`` processes.

    Ranks in ``lost`` may end or stay silent; their answer is None, and the group is not used again.

    Raises:
        RankFailed: with the traceback of every rank that raised, and the ranks that never answered.
    """
    if world not in _pools:
        _pools[world] = _Pool(world)
    workers, store = _pools[world].workers, f"{_pools[world].directory}/store"
    for rank, worker in enumerate(workers):
        worker.connection.send((function.__module__, function.__qualname__, args, rank, world, store))
    answers: dict[int, tuple[bool, Any]] = {}
    end = time.monotonic() + timeout
    needed = set(range(world)) - set(lost)
    while not needed <= answers.keys() and (left := end - time.monotonic()) > 0:
        waiting = {workers[rank].connection: rank for rank in needed - answers.keys()}
        for ready in wait(list(waiting), left):
            assert isinstance(ready, Connection)
            try:
                answers[waiting[ready]] = ready.recv()
            except EOFError:
                answers[waiting[ready]] = False, "the process ended"
        if not all(fine for fine, _ in answers.values()):
            end = min(end, time.monotonic() + GRACE)
    failures = [f"rank {rank}:\n{answer}" for rank, (fine, answer) in sorted(answers.items()) if not fine]
    silent = [f"rank {rank}: no answer" for rank in sorted(needed - answers.keys())]
    if failures or silent or lost:
        _pools.pop(world).stop()  # their group may be of no use
    if failures or silent:
        raise RankFailed("\n".join([*failures, *silent]))
    return [answers[rank][1] if rank in answers else None for rank in range(world)]


def _serve(connection: Connection) -> None:
    """Answer jobs until the connection closes."""
    import importlib
    import warnings
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    from steepest.distributed import collectives

    torch.set_num_threads(1)
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\..*")
    collectives.TIMEOUT = timedelta(seconds=30)
    while True:
        try:
            module, name, args, rank, world, meeting = connection.recv()
        except EOFError:
            return
        try:
            if not dist.is_initialized():
                store = dist.FileStore(meeting, world)
                dist.init_process_group(
                    "gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=60)
                )
            function: Any = importlib.import_module(module)
            for part in name.split("."):
                function = getattr(function, part)
            answer = True, function(*args)
        except BaseException:
            answer = False, traceback.format_exc()
        with contextlib.suppress(BrokenPipeError):
            connection.send(answer)
