"""Work that goes on beside the steps which do not need its result yet.

A result is a function of tensors in the state that stay as they are until it is taken. A worker thread may
have it ready by then; where it has not begun, or there is no worker's result for these very tensors (after
loading, copying or forking, or where somebody wrote to them), it is computed when it is taken, with the same
bits. So nothing of the work belongs to the state, and nothing here decides what a step does.

Somebody's writing is noticed by torch's version counters, and on the CPU by a hash besides: collectives,
NumPy and ``.data`` write past the counters. To read a hash from a device would make the host wait.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Size, Tensor

Result = tuple[Tensor, ...]
Marks = tuple[tuple[int, int, Any], ...]
Work = Callable[..., Result]
"""From tensors (k, d, e) and settings to tensors (k, ...): without memory of its own, and in any thread."""


class Background:
    """What a rule may have computed beside its steps for the parameters of one bucket.

    ``states`` are the parameters' own, ``stack`` is what the rule sees of them. Each is worked on alone, so
    that the bits of a result do not depend on which parameters a step happens to stack.
    """

    def __init__(self, states: Sequence[Mapping[str, Tensor]], stack: Mapping[str, Tensor]) -> None:
        self.states, self.stack = states, stack
        self._asked: list[_Task] = []

    def ask(self, work: Work, names: tuple[str, ...], *settings: Any) -> None:
        """Announce that ``take`` will be called with the same arguments in a later step.

        The first of ``names`` is read by no other work.
        """
        self._asked.append(self._task(work, names, settings))

    def start(self) -> None:
        """Begin what was asked for, now that the states hold what it works on."""
        for task in self._asked:
            for own in self.states:
                _start(task, task.tensors(own))
        self._asked.clear()

    def take(self, work: Work, names: tuple[str, ...], *settings: Any) -> Result:
        """Return ``work`` of the tensors with these names, stacked over all parameters."""
        task = self._task(work, names, settings)
        found = [_take(task, task.tensors(own)) for own in self.states]
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))

    def _task(self, work: Work, names: tuple[str, ...], settings: tuple[Any, ...]) -> _Task:
        return _Task(work, names, tuple(self.stack[name].shape[-2:] for name in names), settings)


@dataclass(frozen=True)
class _Task:
    work: Work
    names: tuple[str, ...]
    shapes: tuple[Size, ...]
    settings: tuple[Any, ...]

    def tensors(self, own: Mapping[str, Tensor]) -> list[Tensor]:
        return [own[name] for name in self.names]


@dataclass(frozen=True)
class _Job:
    task: _Task
    inputs: tuple[weakref.ref[Tensor], ...]
    marks: Marks
    future: Future[tuple[Result, torch.cuda.Event | None]]

    def fits(self, task: _Task, tensors: Sequence[Tensor]) -> bool:
        """Return whether this is the same work on the same tensors, unchanged since."""
        same = task == self.task and all(ref() is x for ref, x in zip(self.inputs, tensors, strict=True))
        return same and _marks(tensors) == self.marks


_under_way: dict[int, _Job] = {}
"""Jobs by the id of the first tensor they work on; they are forgotten when that tensor is."""


def _start(task: _Task, tensors: Sequence[Tensor]) -> None:
    key = tensors[0]
    _under_way.pop(id(key), None)
    if key.device.type not in ("cpu", "cuda") or any(isinstance(x, Tensor) for x in task.settings):
        return
    if not key.numel() or any(type(x) is not Tensor or x.is_inference() for x in tensors):
        return
    ready = None
    if key.is_cuda:
        ready = torch.cuda.Event()
        ready.record(torch.cuda.current_stream(key.device))
        for x in tensors:
            x.record_stream(_side_stream(key.device))
    try:
        future = _worker().submit(_apart, task, tensors, torch.get_num_threads(), ready)
    except RuntimeError:  # the interpreter is shutting down, or the system has no thread left
        return

    def forget(_: Any, key: int = id(key)) -> None:
        _under_way.pop(key, None)

    refs = weakref.ref(key, forget), *(weakref.ref(x) for x in tensors[1:])
    _under_way[id(key)] = _Job(task, refs, _marks(tensors), future)


def _take(task: _Task, tensors: Sequence[Tensor]) -> Result:
    job = _under_way.pop(id(tensors[0]), None)
    if job is None or job.future.cancel() or not job.fits(task, tensors):
        return _run(task, tensors)
    if job.future.exception() is not None:
        return _run(task, tensors)  # which succeeds, or raises where the user sees it
    found, done = job.future.result()
    if done is not None:
        here = torch.cuda.current_stream(tensors[0].device)
        done.wait(here)
        for x in found:
            x.record_stream(here)
    return found


def _apart(
    task: _Task,
    tensors: Sequence[Tensor],
    threads: int,
    ready: torch.cuda.Event | None,
) -> tuple[Result, torch.cuda.Event | None]:
    """Run in the worker, on CUDA in a stream of its own; the event there says when the result is complete."""
    if torch.get_num_threads() != threads:  # on how many a product is split decides its last bits
        torch.set_num_threads(threads)
    with torch.no_grad():
        if ready is None:
            return _run(task, tensors), None
        with torch.cuda.stream(_side_stream(tensors[0].device)):
            ready.wait()
            found = _run(task, tensors)
            done = torch.cuda.Event()
            done.record()
            return found, done


def _run(task: _Task, tensors: Sequence[Tensor]) -> Result:
    stacks = (x.reshape(-1, *shape) for x, shape in zip(tensors, task.shapes, strict=True))
    return task.work(*stacks, *task.settings)


def _marks(tensors: Sequence[Tensor]) -> Marks:
    """Return what differs once a tensor has been written to."""
    return tuple((x._version, x.data_ptr(), None if x.is_cuda else _hash(x)) for x in tensors)


def _hash(x: Tensor) -> Any:
    return torch.hash_tensor(x).view(torch.int64).item()


@cache
def _worker() -> ThreadPoolExecutor:
    """Return the one worker, made when there is work: eigensolvers let go of the interpreter's lock."""
    return ThreadPoolExecutor(1, thread_name_prefix="steepest-background")


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _forget_all() -> None:
    """In a forked child there is no worker: what its parent began, it computes itself."""
    _under_way.clear()
    _worker.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
