"""Images as the tasks use them: bytes until they reach the model, in three parts that never change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from steepest.race.data import cifar, idx
from steepest.race.data.lookup import find
from steepest.race.data.sources import CIFAR10, FASHION_MNIST, MNIST
from steepest.race.engine import to_device

VALIDATION_PART = 0.1
CHUNK = 500
"""Images evaluated at once."""
GREY = {"fashion-mnist": FASHION_MNIST, "mnist": MNIST}
MOMENTS = {
    "fashion-mnist": ((0.2860,), (0.3530,)),
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}
"""Mean and standard deviation of each channel over the training images, of pixels from 0 to 1."""

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Part:
    """Some of the images (n, channels, height, width) and their classes: those at ``index``, in its order."""

    images: Tensor
    labels: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def take(self, places: Tensor) -> Batch:
        """Return the images and classes at these places of the part."""
        which = self.index[places]
        return self.images[which], self.labels[which]


class Pictures(NamedTuple):
    """Training images: nine tenths to train on, one to choose learning rates by; and the test images."""

    train: Part
    val: Part
    test: Part


def grey(name: str) -> Pictures:
    """Load ``"fashion-mnist"`` or ``"mnist"``: images (n, 1, 28, 28)."""
    return _grey(name, find(GREY[name]["train_images"]))


def cifar10() -> Pictures:
    """Load CIFAR-10: images (n, 3, 32, 32)."""
    return _cifar10(find(CIFAR10))


@lru_cache(maxsize=2)
def _grey(name: str, _: Path) -> Pictures:
    images = idx.load(GREY[name])
    return _parts(images.train[:, None], images.train_labels, images.test[:, None], images.test_labels)


@lru_cache(maxsize=1)
def _cifar10(_: Path) -> Pictures:
    images = cifar.load()
    return _parts(images.train, images.train_labels, images.test, images.test_labels)


def _parts(images: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor) -> Pictures:
    """Divide at random, once and for all: a file may be sorted by class."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    test_order = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))
    cut = len(images) - max(1, round(VALIDATION_PART * len(images)))
    return Pictures(
        Part(images, labels, order[:cut]),
        Part(images, labels, order[cut:]),
        Part(test, test_labels, test_order),
    )


def draw(pictures: Pictures, generator: torch.Generator, batch_size: int) -> Batch:
    """Draw training images with replacement."""
    return pictures.train.take(torch.randint(len(pictures.train), (batch_size,), generator=generator))


def first(part: Part, count: int, network: nn.Module) -> Iterator[Batch]:
    """Go through the first ``count`` images of a part, or all if there are fewer, where the network is."""
    device = next(network.parameters()).device
    for places in torch.arange(min(count, len(part))).split(CHUNK):
        yield to_device(part.take(places), device)


class Standardize(nn.Module):
    """Bytes to numbers of mean zero and variance one over the training images, per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, dataset: str) -> None:
        super().__init__()
        for name, values in zip(("mean", "std"), MOMENTS[dataset], strict=True):
            self.register_buffer(name, 255 * torch.tensor(values).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Map (b, c, h, w) bytes to the same shape in float32."""
        return (images.float() - self.mean) / self.std
