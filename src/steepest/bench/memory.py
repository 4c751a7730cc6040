"""Memory of optimizers: bytes of state, and the most that a step holds beyond what was there before."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import profiler


def state_bytes(states: Iterable[Any]) -> int:
    """Return the bytes of all tensors in states, whatever the nesting; shared storage counts once."""
    found: dict[int, int] = {}
    waiting, seen = list(states), set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value
    return sum(found.values())


def peak_bytes(work: Callable[[], Any], device: torch.device) -> int:
    """Run ``work`` and return the most bytes it held at once beyond those at its start.

    On CUDA this is what torch's allocator counts. On the CPU it is the running sum of the allocations that
    torch's profiler records: everything that goes through torch's allocator, workspaces of its linear
    algebra included, but not what a foreign library takes from the system itself.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "9")  # it would log its start and its stop
    profile: Any = profiler.profile(use_kineto=True, profile_memory=True)
    with profile:
        work()
    recorded = profile.kineto_results  # the parsed events cost seconds and say no more
    changes = [(e.start_ns(), e.nbytes()) for e in recorded.events() if e.name() == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes, key=lambda entry: entry[0]):
        held += change
        peak = max(peak, held)
    return peak
