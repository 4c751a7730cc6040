"""MNIST through 32 numbers: an experiment of an earlier version of the ANDI paper."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from torch import nn

from steepest.race.data.identity import identity
from steepest.race.records import RaceError
from steepest.race.task import Task
from steepest.race.tasks.andi_paper import BATCH_SIZE, EARLIER, STEPS, andi_paper, claim
from steepest.race.tasks.pictures import GREY, Pictures, draw, grey
from steepest.race.tasks.reconstruction import autoencoder, evaluate, loss
from steepest.spelling import suggest

WIDTHS = (784, 128, 32, 128, 784)
CALLED = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}


class Size(NamedTuple):
    """What a preset sets; the targets are of MNIST and of Fashion-MNIST."""

    steps: int
    validation: int
    targets: dict[str, float | None]
    step_ms: float


SIZES = {
    "cpu": Size(1000, 1000, {"mnist": None, "fashion-mnist": 0.015}, 7.0),
    "full": Size(STEPS, 6000, {"mnist": None, "fashion-mnist": None}, 7.0),
}

CLAIMS = (claim("ANDI tracks AdamW", "ANDI", "no worse", "AdamW", margin=1e-3),)


def model(_: Pictures) -> nn.Module:
    """Four linear layers, ReLU between, sigmoid at the end."""
    return autoencoder(WIDTHS, nn.ReLU)


def task(preset: str = "cpu", *, dataset: str = "mnist") -> Task:
    """Return the task at a preset.

    Args:
        preset: ``"full"`` is the paper's length, ``"cpu"`` a shorter one.
        dataset: ``"mnist"``, the paper's, or ``"fashion-mnist"``.

    Raises:
        RaceError: there is no such dataset.
    """
    if dataset not in GREY:
        hint = suggest(str(dataset), list(GREY))
        raise RaceError(f"autoencoder: dataset must be {' or '.join(GREY)}, got {dataset!r}{hint}")
    size = SIZES[preset]
    return Task(
        name="autoencoder" if dataset == "mnist" else f"autoencoder-{dataset}",
        version="1",
        description=f"{CALLED[dataset]}; autoencoder {'-'.join(map(str, WIDTHS))}, ReLU; mean squared error",
        data=partial(grey, dataset),
        model=model,
        batch=draw,
        loss=loss,
        evaluate=partial(evaluate, validation=size.validation),
        steps=size.steps,
        batch_size=BATCH_SIZE,
        target=size.targets[dataset],
        step_ms=size.step_ms,
        settings={
            "dataset": dataset,
            "validation": size.validation,
            "data": identity(GREY[dataset].values()),
        },
        preset=preset,
        paper=andi_paper(part=EARLIER),
        claims=CLAIMS,
    )
