"""A task that trains in milliseconds, optimizers that misbehave, and an executor without processes."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from steepest.race.paper import Paper
from steepest.race.records import RunRecord
from steepest.race.spec import RunSpec
from steepest.race.task import Task
from steepest.race.training import train


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=generator)
    return x, torch.tanh(x @ torch.randn(4, 1, generator=generator))


def model(xy: tuple[torch.Tensor, torch.Tensor]) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def batch(xy: tuple[torch.Tensor, torch.Tensor], generator: torch.Generator, size: int) -> torch.Tensor:
    return torch.randint(48, (size,), generator=generator)


def loss(network: nn.Module, index: torch.Tensor) -> torch.Tensor:
    x, y = data()
    return (network(x[index]) - y[index]).square().mean()


def evaluate(network: nn.Module, xy: tuple[torch.Tensor, torch.Tensor]) -> dict[str, float]:
    x, y = xy
    return {"val_loss": (network(x[48:]) - y[48:]).square().mean().item()}


task = Task(
    name="toy",
    version="1",
    description="a regression",
    data=data,
    model=model,
    batch=batch,
    loss=loss,
    evaluate=evaluate,
    steps=6,
    batch_size=8,
    auxiliary=("2.*",),
    step_ms=1.0,
)


def sized(preset: str = "cpu", *, hidden: int = 8, mode: str = "narrow") -> Task:
    if mode not in ("narrow", "wide"):
        raise ValueError("mode must be narrow or wide")

    def network(xy: tuple[torch.Tensor, torch.Tensor]) -> nn.Module:
        return nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    return replace(
        task,
        name="sized" if mode == "narrow" else f"sized-{mode}",
        model=network,
        steps=60 if preset == "full" else 6,
        settings={"hidden": hidden},
        preset=preset,
    )


def unsized() -> Task:
    return replace(task, name="unsized")


published = replace(
    task,
    name="published",
    paper=Paper(
        "Toys, table 1",
        steps=5,
        batch_size=4,
        seeds=(42, 7),
        fixed={"AdamW": 1e-2, "Muon": 0.02},
        swept={"ANDI": (0.1, 0.03, 0.01)},
        kwargs={"ANDI": {"momentum": 0.8}},
    ),
)


class RaisesInInit(torch.optim.SGD):
    def __init__(self, params, lr=0.1):
        raise RuntimeError("no\nsuch thing")


class RaisesInStep(torch.optim.SGD):
    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr)
        self.count = 0

    def step(self, closure=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        self.count += 1
        if self.count == 3:
            raise ZeroDivisionError("third step")
        return super().step()


class RaisesAtOnce(torch.optim.SGD):
    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr)

    def step(self, closure=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        raise FloatingPointError("refused")


class Dies(torch.optim.SGD):
    """Takes its process with it, at most as often as the file named by DEATHS holds bytes."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr)

    def step(self, closure=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        deaths = Path(os.environ["DEATHS"])
        left = deaths.read_bytes()
        if left:
            deaths.write_bytes(left[1:])
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step()


class Inline:
    """Does runs in this process, and remembers which."""

    def __init__(self, slots: int = 2) -> None:
        self.slots = slots
        self.done: list[RunSpec] = []
        self._queue: list[RunSpec] = []

    def submit(self, spec: RunSpec) -> None:
        assert len(self._queue) < self.slots
        self._queue.append(spec)

    def next_record(self) -> RunRecord:
        spec = self._queue.pop()
        self.done.append(spec)
        return train(spec)

    def close(self) -> None:
        pass
