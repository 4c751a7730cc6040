"""English characters: the help texts that Python ships and a small causal transformer."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steepest.race.task import Task

CONTEXT = 32
WIDTH = 48
HEADS = 4
LAYERS = 2
VALIDATION_PART = 0.1
VALIDATION_WINDOWS = 96


class Text(NamedTuple):
    """Characters as integers: the first nine tenths for training, the rest for validation."""

    train: Tensor
    val: Tensor
    vocabulary: int


@lru_cache(maxsize=1)
def raw_text() -> str:
    """Return the topics of Python's interactive help, in alphabetical order (about 465,000 characters)."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


@lru_cache(maxsize=1)
def data() -> Text:
    """Encode the text; the vocabulary is the set of its characters."""
    text = raw_text()
    code = {character: i for i, character in enumerate(sorted(set(text)))}
    encoded = torch.tensor([code[character] for character in text], dtype=torch.long)
    cut = int(len(encoded) * (1 - VALIDATION_PART))
    return Text(encoded[:cut], encoded[cut:], len(code))


class Block(nn.Module):
    """Causal self-attention and a two-layer network of four times the width, each after a LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH)
        self.query = nn.Linear(WIDTH, WIDTH, bias=False)
        self.key = nn.Linear(WIDTH, WIDTH, bias=False)
        self.value = nn.Linear(WIDTH, WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm2 = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Map batch x time x width to the same shape."""
        h = self.norm1(x)
        q, k, v = (
            f(h).unflatten(-1, (HEADS, -1)).transpose(1, 2) for f in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Learned positions, pre-norm blocks, an untied output head."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, WIDTH)
        self.position = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, vocabulary, bias=False)
        for table in (self.embedding, self.position):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map batch x time integers to batch x time x vocabulary logits."""
        x = self.embedding(tokens) + self.position.weight[: tokens.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def model(text: Text) -> nn.Module:
    """Build the transformer for the vocabulary of the text."""
    return Transformer(text.vocabulary)


def batch(text: Text, generator: torch.Generator, batch_size: int) -> Tensor:
    """Draw windows of one character more than the context, at random places of the training text."""
    start = torch.randint(len(text.train) - CONTEXT, (batch_size, 1), generator=generator)
    return text.train[start + torch.arange(CONTEXT + 1)]


def loss(network: nn.Module, windows: Tensor) -> Tensor:
    """Cross-entropy of the next character in nats."""
    logits = network(windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())


def evaluate(network: nn.Module, text: Text) -> dict[str, float]:
    """Cross-entropy and accuracy on windows spread evenly over the validation text, always the same."""
    start = torch.linspace(0, len(text.val) - CONTEXT - 1, VALIDATION_WINDOWS).long()[:, None]
    windows = text.val[start + torch.arange(CONTEXT + 1)]
    logits = network(windows[:, :-1]).flatten(0, 1)
    following = windows[:, 1:].flatten()
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
    batch=batch,
    loss=loss,
    evaluate=evaluate,
    steps=200,
    batch_size=12,
    target=2.3,
    auxiliary=("embedding.*", "position.*", "head.*"),
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
