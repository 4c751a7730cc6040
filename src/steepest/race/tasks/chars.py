"""English characters: the help texts that Python ships and a small causal transformer."""

from __future__ import annotations

import hashlib
from functools import lru_cache, partial

import torch
from torch import nn
from torch.nn import functional as F

from steepest.race.data.text import Characters, encode
from steepest.race.engine import to_device
from steepest.race.task import Task
from steepest.race.tasks.characters import loss, windows
from steepest.race.tasks.transformer import AUXILIARY, Transformer

CONTEXT = 32
WIDTH = 48
HEADS = 4
LAYERS = 2
VALIDATION_WINDOWS = 96


@lru_cache(maxsize=1)
def raw_text() -> str:
    """Return the topics of Python's interactive help, in alphabetical order (about 465,000 characters)."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


@lru_cache(maxsize=1)
def data() -> Characters:
    """Encode the text; the vocabulary is the set of its characters."""
    return encode(raw_text())


def model(text: Characters) -> nn.Module:
    """Build the transformer for the vocabulary of the text."""
    return Transformer(text.vocabulary, context=CONTEXT, width=WIDTH, heads=HEADS, layers=LAYERS)


def evaluate(network: nn.Module, text: Characters) -> dict[str, float]:
    """Cross-entropy and accuracy on windows spread evenly over the validation text, always the same."""
    start = torch.linspace(0, len(text.val) - CONTEXT - 1, VALIDATION_WINDOWS).long()[:, None]
    held_out = to_device(text.val[start + torch.arange(CONTEXT + 1)], next(network.parameters()).device)
    logits = network(held_out[:, :-1]).flatten(0, 1)
    following = held_out[:, 1:].flatten()
    return {
        "val_loss": F.cross_entropy(logits, following).item(),
        "val_accuracy": (logits.argmax(1) == following).float().mean().item(),
    }


task = Task(
    name="chars",
    version="1",
    description=(
        f"characters of Python's help texts; causal transformer, {LAYERS} layers, width {WIDTH}, "
        f"{HEADS} heads, context {CONTEXT}; cross-entropy"
    ),
    data=data,
    model=model,
    batch=partial(windows, context=CONTEXT),
    loss=loss,
    evaluate=evaluate,
    steps=200,
    batch_size=12,
    target=2.3,
    auxiliary=AUXILIARY,
    step_ms=12.0,
    settings={
        "context": CONTEXT,
        "width": WIDTH,
        "heads": HEADS,
        "layers": LAYERS,
        "validation_windows": VALIDATION_WINDOWS,
        # The help texts differ between versions of Python.
        "text": hashlib.sha256(raw_text().encode()).hexdigest()[:12],
    },
)
