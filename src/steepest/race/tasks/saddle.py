"""The ANDI paper's autoencoder of Fashion-MNIST: deep, narrow, saturating, so that plateaus are many."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from torch import nn

from steepest.race.data.identity import identity
from steepest.race.data.sources import FASHION_MNIST
from steepest.race.task import Task
from steepest.race.tasks.andi_paper import BATCH_SIZE, STEPS, andi_paper, claim
from steepest.race.tasks.pictures import Pictures, draw, grey
from steepest.race.tasks.reconstruction import autoencoder, evaluate, loss

WIDTHS = (784, 256, 64, 16, 64, 256, 784)


class Size(NamedTuple):
    """What a preset sets."""

    steps: int
    validation: int
    target: float | None
    step_ms: float


SIZES = {
    "cpu": Size(steps=400, validation=1000, target=0.031, step_ms=12.0),
    "full": Size(steps=STEPS, validation=6000, target=None, step_ms=12.0),
}

CLAIMS = (
    claim("AdamW ends below ANDI", "AdamW", "better", "ANDI"),
    claim("AdamW ends below Muon, which falls fast and then stays on a plateau", "AdamW", "better", "Muon"),
    claim("ANDI ends below Muon", "ANDI", "better", "Muon"),
    claim("ANDI ends near AdamW", "ANDI", "no worse", "AdamW", margin=2e-3),
)
BOUND = claim("AdamW ends below 0.01", "AdamW", "better", 1e-2)
"""Of the paper's number of steps; fewer do not get there."""


def data() -> Pictures:
    """Load Fashion-MNIST."""
    return grey("fashion-mnist")


def model(_: Pictures) -> nn.Module:
    """Six linear layers around 16 numbers, tanh between, sigmoid at the end."""
    return autoencoder(WIDTHS, nn.Tanh)


def task(preset: str = "cpu") -> Task:
    """Return the task at a preset: ``"full"`` is the paper's length, ``"cpu"`` a shorter one."""
    size = SIZES[preset]
    return Task(
        name="saddle",
        version="2",
        description=f"Fashion-MNIST; autoencoder {'-'.join(map(str, WIDTHS))}, tanh; mean squared error",
        data=data,
        model=model,
        batch=draw,
        loss=loss,
        evaluate=partial(evaluate, validation=size.validation),
        steps=size.steps,
        batch_size=BATCH_SIZE,
        target=size.target,
        step_ms=size.step_ms,
        settings={
            "widths": WIDTHS,
            "validation": size.validation,
            "data": identity(FASHION_MNIST.values()),
        },
        preset=preset,
        paper=andi_paper(),
        claims=(BOUND, *CLAIMS) if preset == "full" else CLAIMS,
    )
