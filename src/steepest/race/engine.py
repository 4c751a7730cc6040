"""How a run is computed, whatever it computes: device, compilation, precision, accumulation, schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from steepest.race.records import RaceError
from steepest.race.schedules import check_schedule
from steepest.spelling import suggest

AUTOCAST = ("bfloat16",)


@dataclass(frozen=True)
class Engine:
    """Options of the training loop, as plain data; all of them are part of a run's key.

    Args:
        device: where model and batches are, as torch names it: "cpu", "cuda", "cuda:1", "mps". Weights and
            batches are drawn on the CPU first, so that a seed means the same everywhere.
        compile: whether the model is compiled by ``torch.compile``.
        autocast: "bfloat16" computes forward passes in that precision where torch deems it safe; None does
            not. Weights and the optimizer's state keep their own.
        accumulate: into how many equal parts a batch is split, one backward pass each; the step is the same
            up to rounding and takes less memory. Where the loss is a mean over unequal counts (padded
            sentences), it is the mean of the parts' means.
        clip: the global norm to which longer gradients are scaled down, or None.
        schedule: "linear", "cosine" or "constant"; None is the task's.
        warmup: the part of the steps over which the learning rate rises first; None is the task's.
        threads: threads of one run on a CPU, in each process.
        processes: how many share a run, each with its part of every batch; see `steepest.race.parallel`. On
            "cuda" each has a GPU of its own.

    Raises:
        RaceError: a value is not allowed; the message names the argument.
    """

    device: str = "cpu"
    compile: bool = False
    autocast: str | None = None
    accumulate: int = 1
    clip: float | None = None
    schedule: str | None = None
    warmup: float | None = None
    threads: int = 1
    processes: int = 1

    def __post_init__(self) -> None:
        try:
            torch.device(self.device)
        except RuntimeError:
            raise RaceError(
                f"device must be one that torch knows, like cpu, cuda or cuda:1, got {self.device!r}"
            ) from None
        if self.autocast is not None and self.autocast not in AUTOCAST:
            hint = suggest(str(self.autocast), list(AUTOCAST))
            raise RaceError(f"autocast must be bfloat16 or nothing, got {self.autocast!r}{hint}")
        for name in ("accumulate", "threads", "processes"):
            if getattr(self, name) < 1:
                raise RaceError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        if self.processes > 1 and torch.device(self.device).type not in ("cpu", "cuda"):
            raise RaceError(f"processes must be 1 on device {self.device!r}, got {self.processes}")
        if self.processes > 1 and ":" in self.device:
            raise RaceError(f"device must be cuda, one for each process, not {self.device!r}")
        if self.clip is not None and not (self.clip > 0 and math.isfinite(self.clip)):
            raise RaceError(f"clip must be a positive finite norm, got {self.clip!r}")
        check_schedule(self.schedule or "linear", 0.0 if self.warmup is None else self.warmup)

    def to_dict(self) -> dict[str, Any]:
        """Return the options as plain data."""
        return asdict(self)

    def gpus(self) -> int:
        """Return how many CUDA devices a run is to be given; one that is numbered is not given out."""
        return self.processes if self.device == "cuda" else 0

    def require_device(self) -> None:
        """Refuse a device that this machine does not have.

        Raises:
            RaceError: with what is there.
        """
        device = torch.device(self.device)
        if device.type == "cpu":
            return
        there = torch.accelerator.current_accelerator(check_available=True)
        count = 0 if there is None or there.type != device.type else torch.accelerator.device_count()
        if max((device.index or 0) + 1, self.processes) > count:
            found = f"{there.type} ({torch.accelerator.device_count()})" if there else "none"
            wanted = f"{self.processes} of device" if self.processes > 1 else "device"
            raise RaceError(f"{wanted} {self.device!r} is not available here; accelerators found: {found}")

    def precision(self) -> AbstractContextManager[object]:
        """Return the context in which the model is computed."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=getattr(torch, self.autocast))


def to_device(x: Any, device: torch.device | str) -> Any:
    """Move a tensor, or nested tuples, lists and mappings of tensors; anything else is returned as it is.

    A task's ``evaluate`` moves its held-out data with this, to the device of the model's first parameter.
    Named tuples stay what they are.
    """
    return _map(x, lambda tensor: tensor.to(device, non_blocking=True))


def part_of_batch(batch: Any, index: int, parts: int, batch_size: int) -> Any:
    """Return the part number `index` of `parts` equal ones of a batch, cut along the first dimension.

    Args:
        batch: a tensor, or nested tuples, lists and mappings of tensors. Numbers (0-d) are in every part.
        index: from 0.
        parts: must divide `batch_size`.
        batch_size: the length that every tensor's first dimension has.

    Raises:
        RaceError: the batch cannot be cut so.
    """
    if parts == 1:
        return batch
    if batch_size % parts:
        raise RaceError(f"a batch of {batch_size} cannot be cut into {parts} equal parts")
    length = batch_size // parts

    def cut(tensor: Tensor) -> Tensor:
        if tensor.ndim == 0:
            return tensor
        if len(tensor) != batch_size:
            raise RaceError(
                f"to cut a batch of {batch_size} into {parts} parts, every tensor in it must have examples "
                f"along its first dimension; one has the shape {tuple(tensor.shape)}"
            )
        return tensor[index * length : (index + 1) * length]

    return _map(batch, cut)


def _map(x: Any, change: Any) -> Any:
    if isinstance(x, Tensor):
        return change(x)
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*(_map(item, change) for item in x))
    if isinstance(x, tuple | list):
        return type(x)(_map(item, change) for item in x)
    if isinstance(x, Mapping):
        return {name: _map(item, change) for name, item in x.items()}
    return x
