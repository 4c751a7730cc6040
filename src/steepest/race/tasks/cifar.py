"""ResNet-9 on CIFAR-10; without its residual links (`plain`) it is the network of the ANDI paper's script."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from steepest.race.data import cifar
from steepest.race.data.augment import crop_and_flip
from steepest.race.data.identity import identity
from steepest.race.data.sources import CIFAR10
from steepest.race.records import RaceError
from steepest.race.task import Task
from steepest.race.tasks.andi_paper import BATCH_SIZE, andi_paper, claim
from steepest.race.tasks.classification import evaluate, loss
from steepest.race.tasks.pictures import Batch, Pictures, Standardize, cifar10, draw
from steepest.race.tasks.resnet9 import resnet9

SIDE = 32


class Size(NamedTuple):
    """What a preset sets; ``shrink`` is the side of the squares of pixels that are averaged into one."""

    channels: int
    shrink: int
    steps: int
    batch_size: int
    validation: int
    test: int
    target: float | None
    step_ms: float


SIZES = {
    "cpu": Size(8, 2, 300, 64, 400, 400, 1.53, 40.0),
    # 20 epochs; the paper's 2,500 steps are 7 of the 45,000 images.
    "full": Size(64, 1, 7000, BATCH_SIZE, 5000, 10000, None, 4000.0),
}

CLAIMS = (
    claim("ANDI and Muon end nearly equal", "ANDI", "equal", "Muon", margin=0.03),
    claim("ANDI is faster than AdamW", "ANDI", "better", "AdamW"),
    claim("Muon is faster than AdamW", "Muon", "better", "AdamW"),
)


def model(_: Pictures, *, size: Size, plain: bool) -> nn.Module:
    """Build the network for bytes."""
    return nn.Sequential(
        OrderedDict(
            input=Standardize("cifar10"),
            shrink=nn.AvgPool2d(size.shrink) if size.shrink > 1 else nn.Identity(),
            network=resnet9(size.channels, side=SIDE // size.shrink, residual=not plain),
        )
    )


def batch(pictures: Pictures, generator: torch.Generator, batch_size: int) -> Batch:
    """Draw images with replacement, shifted by up to four pixels and mirrored at random."""
    images, labels = draw(pictures, generator, batch_size)
    return crop_and_flip(images, generator), labels


def task(preset: str = "cpu", *, plain: bool = False) -> Task:
    """Return the task at a preset.

    Args:
        preset: ``"full"`` is the usual ResNet-9 for 20 epochs, ``"cpu"`` an eighth of its channels on images
            of half the side, for a few minutes' race.
        plain: leave out the residual links.

    Raises:
        RaceError: ``plain`` is neither True nor False.
    """
    if not isinstance(plain, bool):
        raise RaceError(f"cifar: plain must be True or False, got {plain!r}")
    size = SIZES[preset]
    c = size.channels
    side = SIDE // size.shrink
    return Task(
        name="cifar-plain" if plain else "cifar",
        version="2",
        description=(
            f"{cifar.called()}, {side} x {side} pixels, random crop and flip; "
            f"{'plain' if plain else 'residual'} ResNet-9, {c} to {8 * c} channels; cross-entropy"
        ),
        data=cifar10,
        model=partial(model, size=size, plain=plain),
        batch=batch,
        loss=loss,
        evaluate=partial(evaluate, validation=size.validation, test=size.test),
        steps=size.steps,
        batch_size=size.batch_size,
        target=size.target,
        auxiliary=("network.head.*",),
        step_ms=size.step_ms,
        settings={
            "plain": plain,
            "channels": c,
            "shrink": size.shrink,
            "validation": size.validation,
            "test": size.test,
            "data": identity([CIFAR10]),
        },
        preset=preset,
        paper=andi_paper(),
        claims=CLAIMS,
        headline="test_accuracy",
    )
