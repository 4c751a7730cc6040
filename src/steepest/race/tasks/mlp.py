"""Fashion-MNIST by fully connected layers: an experiment of an earlier version of the ANDI paper."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import NamedTuple

from torch import nn

from steepest.race.data.identity import identity
from steepest.race.data.sources import FASHION_MNIST
from steepest.race.task import Task
from steepest.race.tasks.andi_paper import BATCH_SIZE, EARLIER, STEPS, andi_paper, claim
from steepest.race.tasks.classification import evaluate, loss
from steepest.race.tasks.pictures import Pictures, Standardize, draw, grey


class Size(NamedTuple):
    """What a preset sets; ``hidden`` are the widths of the two hidden layers."""

    hidden: tuple[int, int]
    steps: int
    validation: int
    test: int
    target: float | None
    step_ms: float


SIZES = {
    "cpu": Size((256, 128), steps=500, validation=1000, test=1000, target=0.335, step_ms=8.0),
    "full": Size((512, 256), steps=STEPS, validation=6000, test=10000, target=None, step_ms=12.0),
}

CLAIMS = (claim("ANDI tracks AdamW", "ANDI", "no worse", "AdamW", margin=0.02),)


def data() -> Pictures:
    """Load Fashion-MNIST."""
    return grey("fashion-mnist")


def model(_: Pictures, *, hidden: tuple[int, int]) -> nn.Module:
    """Build three linear layers from 784 numbers to 10, ReLU between."""
    one, two = hidden
    return nn.Sequential(
        OrderedDict(
            input=Standardize("fashion-mnist"),
            flatten=nn.Flatten(),
            first=nn.Linear(784, one),
            relu1=nn.ReLU(),
            second=nn.Linear(one, two),
            relu2=nn.ReLU(),
            head=nn.Linear(two, 10),
        )
    )


def task(preset: str = "cpu") -> Task:
    """Return the task at a preset: ``"full"`` is the paper's, ``"cpu"`` narrower and shorter."""
    size = SIZES[preset]
    one, two = size.hidden
    return Task(
        name="mlp",
        version="2",
        description=f"Fashion-MNIST; linear layers 784-{one}-{two}-10, ReLU; cross-entropy",
        data=data,
        model=partial(model, hidden=size.hidden),
        batch=draw,
        loss=loss,
        evaluate=partial(evaluate, validation=size.validation, test=size.test),
        steps=size.steps,
        batch_size=BATCH_SIZE,
        target=size.target,
        auxiliary=("head.*",),
        step_ms=size.step_ms,
        settings={
            "hidden": size.hidden,
            "validation": size.validation,
            "test": size.test,
            "data": identity(FASHION_MNIST.values()),
        },
        preset=preset,
        paper=andi_paper(part=EARLIER),
        claims=CLAIMS,
        headline="test_accuracy",
    )
