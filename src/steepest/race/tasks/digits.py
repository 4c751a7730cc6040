"""Handwritten digits: scikit-learn's 1,797 images of 8 x 8 pixels and a small convolutional network."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steepest.race.engine import to_device
from steepest.race.task import Task

VALIDATION = 360
SPLIT_SEED = 0


class Digits(NamedTuple):
    """Images (k x 1 x 8 x 8, zero mean and unit variance over the training set) and labels 0 to 9."""

    images: Tensor
    labels: Tensor
    val_images: Tensor
    val_labels: Tensor


@lru_cache(maxsize=1)
def data() -> Digits:
    """Load the images and split them once and for all: 1,437 for training, 360 for validation."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    x = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8)
    y = torch.tensor(labels, dtype=torch.long)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(SPLIT_SEED))
    val, train = order[:VALIDATION], order[VALIDATION:]
    mean, std = x[train].mean(), x[train].std()
    x = (x - mean) / std
    return Digits(x[train], y[train], x[val], y[val])


def model(digits: Digits) -> nn.Module:
    """Two convolutions, two linear layers, 38,282 parameters, no normalisation."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def batch(digits: Digits, generator: torch.Generator, batch_size: int) -> tuple[Tensor, Tensor]:
    """Draw images with replacement."""
    index = torch.randint(len(digits.images), (batch_size,), generator=generator)
    return digits.images[index], digits.labels[index]


def loss(network: nn.Module, drawn: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy in nats."""
    return F.cross_entropy(network(drawn[0]), drawn[1])


def evaluate(network: nn.Module, digits: Digits) -> dict[str, float]:
    """Cross-entropy and accuracy on the validation images."""
    images, labels = to_device((digits.val_images, digits.val_labels), next(network.parameters()).device)
    logits = network(images)
    correct = (logits.argmax(1) == labels).float().mean()
    return {
        "val_loss": F.cross_entropy(logits, labels).item(),
        "val_accuracy": correct.item(),
    }


task = Task(
    name="digits",
    version="1",
    description="8x8 handwritten digits of scikit-learn; convolutions 16-32, linear 64; cross-entropy",
    data=data,
    model=model,
    batch=batch,
    loss=loss,
    evaluate=evaluate,
    steps=200,
    batch_size=64,
    target=0.15,
    auxiliary=("8.*",),
    step_ms=8.0,
    settings={"validation": VALIDATION, "split_seed": SPLIT_SEED},
)
