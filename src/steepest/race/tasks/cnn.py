"""CIFAR-10 by a small convolutional network: an experiment of an earlier version of the ANDI paper."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import NamedTuple

from torch import nn

from steepest.race.data import cifar
from steepest.race.data.identity import identity
from steepest.race.data.sources import CIFAR10
from steepest.race.task import Task
from steepest.race.tasks.andi_paper import BATCH_SIZE, EARLIER, STEPS, andi_paper, claim
from steepest.race.tasks.classification import evaluate, loss
from steepest.race.tasks.pictures import Pictures, Standardize, cifar10, draw

SIDE = 32


class Size(NamedTuple):
    """What a preset sets; ``shrink`` is the side of the squares of pixels that are averaged into one."""

    shrink: int
    steps: int
    batch_size: int
    validation: int
    test: int
    target: float | None
    step_ms: float


SIZES = {
    "cpu": Size(2, 300, 64, 400, 400, 1.42, 25.0),
    "full": Size(1, STEPS, BATCH_SIZE, 5000, 10000, None, 120.0),
}

CLAIMS = (claim("ANDI tracks AdamW", "ANDI", "no worse", "AdamW", margin=0.03),)


def model(_: Pictures, *, shrink: int) -> nn.Module:
    """Build convolutions of 32 and 64 channels, each pooled, and linear layers of 128 and 10."""
    side = SIDE // shrink // 4
    return nn.Sequential(
        OrderedDict(
            input=Standardize("cifar10"),
            shrink=nn.AvgPool2d(shrink) if shrink > 1 else nn.Identity(),
            first=nn.Conv2d(3, 32, 3, padding=1),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            second=nn.Conv2d(32, 64, 3, padding=1),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            third=nn.Linear(64 * side * side, 128),
            relu3=nn.ReLU(),
            head=nn.Linear(128, 10),
        )
    )


def task(preset: str = "cpu") -> Task:
    """Return the task at a preset: ``"full"`` is the paper's, ``"cpu"`` shorter, on halved images."""
    size = SIZES[preset]
    side = SIDE // size.shrink
    return Task(
        name="cnn",
        version="2",
        description=(
            f"{cifar.called()}, {side} x {side} pixels; convolutions 32-64, linear 128; cross-entropy"
        ),
        data=cifar10,
        model=partial(model, shrink=size.shrink),
        batch=draw,
        loss=loss,
        evaluate=partial(evaluate, validation=size.validation, test=size.test),
        steps=size.steps,
        batch_size=size.batch_size,
        target=size.target,
        auxiliary=("head.*",),
        step_ms=size.step_ms,
        settings={
            "shrink": size.shrink,
            "validation": size.validation,
            "test": size.test,
            "data": identity([CIFAR10]),
        },
        preset=preset,
        paper=andi_paper(part=EARLIER),
        claims=CLAIMS,
        headline="test_accuracy",
    )
