"""One run on several processes: each computes its part of every batch, the gradients are averaged.

The processes hold the same weights and draw the same batches, so that a run is the run of one process up to
rounding, as long as the loss is a mean over examples. What is random in the forward pass (dropout) is drawn
by each process for itself, as it is for each example.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from steepest.race.records import RaceError

DRIFT = 1e-4
"""Relative difference of the weights' norms at which replicas no longer count as one model."""


class Alone:
    """The process of a run that has only one; what `Replicas` does is then nothing."""

    rank = 0
    count = 1

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model whose forward passes are trained with."""
        return model

    @contextmanager
    def passes(self, model: nn.Module, last: bool) -> Iterator[None]:
        """Surround forward and backward of one part of a batch; `last` says that no part follows."""
        yield

    def mean(self, loss: float) -> float:
        """Return the mean of a number over the processes."""
        return loss

    def agree(self, metrics: Mapping[str, float], model: nn.Module) -> Mapping[str, float]:
        """Return the metrics that count for all processes."""
        return metrics


class Replicas(Alone):
    """The process of a run on several, in the default process group of `torch.distributed`.

    Args:
        seed: of the run; equal in all processes.
        device: of this process.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.rank = dist.get_rank()
        self.count = dist.get_world_size()
        self._seed = seed
        self._device = device

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model in `DistributedDataParallel`; its batch normalisation sees the whole batch.

        Raises:
            RaceError: it has batch normalisation and is on a CPU, where torch cannot do that.
        """
        if any(isinstance(module, _BatchNorm) for module in model.modules()):
            if self._device.type == "cpu":
                raise RaceError(
                    "a model with batch normalisation cannot be split over processes on a CPU: each would "
                    "normalise its part of the batch by itself; use one process"
                )
            _share_batch_norm(model)
        devices = None if self._device.type == "cpu" else [self._device]
        return _Parallel(self._seed, model, device_ids=devices, find_unused_parameters=True)

    @contextmanager
    def passes(self, model: nn.Module, last: bool) -> Iterator[None]:
        """Average gradients in the last part's backward; draw random numbers of this process's own.

        The optimizer's random numbers, outside of this, stay the same everywhere.
        """
        assert isinstance(model, _Parallel)
        with torch.random.fork_rng([] if self._device.type == "cpu" else [self._device]):
            torch.manual_seed(model.next_seed() + self.rank)
            with nullcontext() if last else model.no_sync():
                yield
        if not model.called:
            raise RaceError(
                "to be split over processes, a task's loss must call the model itself; "
                "this one only calls parts of it"
            )

    def mean(self, loss: float) -> float:
        """Return the mean of a number over the processes; one that is not finite makes it not finite."""
        total = torch.tensor(loss, dtype=torch.float64, device=self._wire())
        dist.all_reduce(total)
        return total.item() / self.count

    def agree(self, metrics: Mapping[str, float], model: nn.Module) -> Mapping[str, float]:
        """Return the first process's metrics.

        Raises:
            RaceError: the processes no longer hold the same weights. An optimizer that depends on more than
                the gradients (on activations, on random numbers of its own) makes them drift apart.
        """
        norm = torch.stack([p.detach().double().norm() for p in model.parameters()]).norm().to(self._wire())
        norms = [torch.empty_like(norm) for _ in range(self.count)]
        dist.all_gather(norms, norm)
        low, high = min(norms).item(), max(norms).item()
        if high - low > DRIFT * high:
            raise RaceError(
                f"the {self.count} processes hold different weights (norms {low:.6g} to {high:.6g}): "
                "the optimizer depends on more than the averaged gradients; use one process"
            )
        shared: list[Any] = [dict(metrics)]
        dist.broadcast_object_list(shared, src=0, device=self._wire())
        return shared[0]

    def _wire(self) -> torch.device:
        """Where tensors must be to be sent."""
        return self._device if dist.get_backend() == "nccl" else torch.device("cpu")


ALONE = Alone()


class _Parallel(DistributedDataParallel):
    """Also gives what tasks read from their model, and knows whether its forward has been called."""

    called = False

    def __init__(self, seed: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._seeds = torch.Generator().manual_seed(seed)

    def next_seed(self) -> int:
        return int(torch.randint(2**62, (), generator=self._seeds))

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        self.called = True
        return super().forward(*inputs, **kwargs)

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


def _share_batch_norm(model: nn.Module) -> None:
    """Replace batch normalisation in place; parameters stay the objects they are."""
    for name, child in model.named_children():
        setattr(model, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
