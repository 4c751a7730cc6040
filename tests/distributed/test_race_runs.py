"""Runs of a race on two processes: what they compute, and what cannot be split."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from distributed import harness
from steepest.race.contenders import parse_contender
from steepest.race.engine import Engine
from steepest.race.parallel import ALONE, Replicas
from steepest.race.records import RunRecord
from steepest.race.spec import make_spec
from steepest.race.task import Task
from steepest.race.task_text import load_task
from steepest.race.training import train

HERE = "distributed.test_race_runs"
DRAWN: list[float] = []


class Network(nn.Module):
    def __init__(self, *between: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), *between, nn.Tanh(), nn.Linear(8, 1))
        self.unused = nn.Linear(3, 3)
        self.scale = 2.0

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Draws(nn.Module):
    """Notes a random number of every forward pass in training."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            DRAWN.append(torch.rand(()).item())
        return x


class DrawsToo(torch.optim.SGD):
    def step(self, closure=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        DRAWN.append(torch.rand(()).item())
        return super().step(closure)


class Drifts(torch.optim.SGD):
    """Its learning rate depends on the process."""

    def step(self, closure=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            group["lr"] *= 1 + (dist.get_rank() if dist.is_initialized() else 0)
        return super().step(closure)


def examples() -> tuple[Tensor, Tensor]:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    return x, torch.tanh(x[:, :1])


def batch(data: tuple[Tensor, Tensor], generator: torch.Generator, size: int) -> dict[str, Tensor]:
    index = torch.randint(48, (size,), generator=generator)
    return {"x": data[0][index], "y": data[1][index]}


def loss(network: nn.Module, pairs: dict[str, Tensor]) -> Tensor:
    return (network(pairs["x"]) * network.scale - pairs["y"]).square().mean()


def loss_of_a_part(network: nn.Module, pairs: dict[str, Tensor]) -> Tensor:
    return (network.layers(pairs["x"]) - pairs["y"]).square().mean()  # pyright: ignore[reportCallIssue]


def loss_infinite_in_the_second_half(network: nn.Module, pairs: dict[str, Tensor]) -> Tensor:
    rank = dist.get_rank() if dist.is_initialized() else 0
    return loss(network, pairs) * (math.inf if rank else 1.0)


def evaluate(network: nn.Module, data: tuple[Tensor, Tensor]) -> dict[str, float]:
    return {"val_loss": (network(data[0][48:]) - data[1][48:]).square().mean().item()}


task = Task(
    name="split",
    version="1",
    description="a regression",
    data=examples,
    model=lambda data: Network(),
    batch=batch,
    loss=loss,
    evaluate=evaluate,
    steps=6,
    batch_size=16,
)
double = replace(
    task,
    name="double",
    data=lambda: tuple(x.double() for x in examples()),
    model=lambda data: Network().double(),
)
drawing = replace(task, name="drawing", model=lambda data: Network(Draws()))
normalized = replace(task, name="normalized", model=lambda data: Network(nn.BatchNorm1d(8)))
partial = replace(task, name="partial", loss=loss_of_a_part)
infinite = replace(task, name="infinite", loss=loss_infinite_in_the_second_half)


def do(task: str, optimizer: str, options: dict, alone: bool = False) -> tuple[RunRecord, list[float]]:
    """Do a run in this process, alone or as one of the group's."""
    DRAWN.clear()
    text = task if task in ("digits", "chars") else f"{HERE}:{task}"
    contender = parse_contender(optimizer)
    aux_lr = 0.01 if contender.is_hybrid() else None
    processes = 1 if alone else dist.get_world_size()
    rest = {"lr": 0.02, "aux_lr": aux_lr, "seed": 3, "phase": "final", "steps": 6}
    engine = Engine(processes=processes, **options)
    spec = make_spec(text, load_task(text), contender, engine=engine, **rest)
    return train(spec, ALONE if alone else Replicas(spec.seed, torch.device("cpu"))), list(DRAWN)


@pytest.mark.parametrize(
    ("name", "optimizer", "options", "tolerance"),
    [
        ("chars", "MuAdam", {}, 5e-4),
        ("digits", "AdamW", {"accumulate": 2}, 1e-4),
        ("double", "MuAdam", {}, 1e-12),
        ("double", "SGD", {"accumulate": 4, "clip": 0.1}, 1e-12),
    ],
)
def test_two_processes_compute_what_one_does(
    name: str, optimizer: str, options: dict, tolerance: float
) -> None:
    alone, _ = do(name, optimizer, options, alone=True)
    records = [record for record, _ in harness.run(2, do, name, optimizer, options)]
    assert [record.status for record in records] == ["ok", "ok"], records[0].error
    assert records[0].train_curve == records[1].train_curve
    assert records[0].val_curve == records[1].val_curve
    for mine, theirs in (
        (alone.train_curve, records[0].train_curve),
        (alone.val_curve, records[0].val_curve),
    ):
        assert [loss for _, loss in theirs] == pytest.approx([loss for _, loss in mine], rel=tolerance)


def test_forward_passes_draw_apart_and_optimizers_together() -> None:
    (_, first), (_, second) = harness.run(2, do, "drawing", f"{HERE}:DrawsToo", {})
    assert len(first) == len(second) == 12
    assert first[1::2] == second[1::2]
    assert not set(first[::2]) & set(second[::2])
    assert len(set(first)) == 12
    alone = do("drawing", f"{HERE}:DrawsToo", {}, alone=True)[1]
    assert len(alone) == 12


@pytest.mark.parametrize(
    ("name", "optimizer", "error"),
    [
        ("normalized", "SGD", "batch normalisation cannot be split over processes on a CPU"),
        ("partial", "SGD", "a task's loss must call the model itself"),
        ("task", f"{HERE}:Drifts", "the 2 processes hold different weights"),
    ],
)
def test_what_cannot_be_split_fails_in_words(name: str, optimizer: str, error: str) -> None:
    for record, _ in harness.run(2, do, name, optimizer, {}):
        assert record.status == "failed"
        assert error in (record.error or "")


def test_a_loss_that_is_not_finite_in_one_process_is_the_end_for_all() -> None:
    for record, _ in harness.run(2, do, "infinite", "SGD", {}):
        assert (record.status, record.error) == ("diverged", "loss not finite at step 1")


def test_a_batch_must_be_divisible() -> None:
    for record, _ in harness.run(2, do, "task", "SGD", {"accumulate": 3}):
        assert record.status == "failed"
        assert "a batch of 16 cannot be cut into 6 equal parts" in (record.error or "")
