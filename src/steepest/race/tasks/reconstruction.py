"""Autoencoders of grey images: fully connected layers, pixels from 0 to 1, the mean squared error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from steepest.race.tasks.pictures import Batch, Pictures, first


def autoencoder(widths: Sequence[int], activation: Callable[[], nn.Module]) -> nn.Sequential:
    """Build linear layers of these widths, the activation after each but the last, a sigmoid at the end."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    layers[-1] = nn.Sigmoid()
    return nn.Sequential(*layers)


def pixels(images: Tensor) -> Tensor:
    """Map (b, 1, h, w) bytes to (b, h w) numbers from 0 to 1."""
    return images.flatten(1).float() / 255


def loss(network: nn.Module, drawn: Batch) -> Tensor:
    """Mean squared error of a pixel."""
    x = pixels(drawn[0])
    return F.mse_loss(network(x), x)


def evaluate(network: nn.Module, pictures: Pictures, *, validation: int) -> dict[str, float]:
    """Mean squared error of a pixel on so many validation images."""
    total, seen = 0.0, 0
    for drawn in first(pictures.val, validation, network):
        total += loss(network, drawn).item() * len(drawn[0])
        seen += len(drawn[0])
    return {"val_loss": total / seen}
