"""Predicting the next character: windows of a text, the loss, and metrics on held-out windows."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steepest.race.data import text
from steepest.race.data.sources import TINY_SHAKESPEARE
from steepest.race.data.text import Characters
from steepest.race.engine import to_device

CHUNK = 256
"""Windows evaluated at once."""


def shakespeare() -> Characters:
    """Load Tiny Shakespeare: the first nine tenths for training, the rest for validation."""
    return _encoded(text.load(TINY_SHAKESPEARE))


@lru_cache(maxsize=2)
def _encoded(content: str) -> Characters:
    return text.encode(content)


def windows(characters: Characters, generator: torch.Generator, batch_size: int, *, context: int) -> Tensor:
    """Draw windows of one character more than the context, at random places of the training text."""
    start = torch.randint(len(characters.train) - context, (batch_size, 1), generator=generator)
    return characters.train[start + torch.arange(context + 1)]


def loss(network: nn.Module, drawn: Tensor) -> Tensor:
    """Cross-entropy of the next character in nats."""
    logits = network(drawn[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), drawn[:, 1:].flatten())


def evaluate(network: nn.Module, characters: Characters, *, context: int, count: int) -> dict[str, float]:
    """Cross-entropy and accuracy on at most ``count`` windows, always the same.

    Windows are spread evenly over the validation text; as many as fit side by side are the whole of it.
    """
    count = min(count, (len(characters.val) - 1) // context)
    start = torch.linspace(0, len(characters.val) - context - 1, count).long()[:, None]
    held_out = characters.val[start + torch.arange(context + 1)]
    device = next(network.parameters()).device
    total, correct = 0.0, 0.0
    for part in held_out.split(CHUNK):
        part = to_device(part, device)
        logits = network(part[:, :-1]).flatten(0, 1)
        following = part[:, 1:].flatten()
        total += F.cross_entropy(logits, following, reduction="sum").item()
        correct += (logits.argmax(1) == following).sum().item()
    characters_seen = held_out[:, 1:].numel()
    return {"val_loss": total / characters_seen, "val_accuracy": correct / characters_seen}
