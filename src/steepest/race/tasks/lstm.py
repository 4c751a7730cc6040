"""A character LSTM on Tiny Shakespeare: an experiment of an earlier version of the ANDI paper."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from steepest.race.data.identity import identity
from steepest.race.data.sources import TINY_SHAKESPEARE
from steepest.race.data.text import Characters
from steepest.race.task import Task
from steepest.race.tasks.andi_paper import BATCH_SIZE, EARLIER, STEPS, andi_paper, claim
from steepest.race.tasks.characters import evaluate, loss, shakespeare, windows

EMBEDDING = 64
HIDDEN = 128
CONTEXT = 64


class Size(NamedTuple):
    """What a preset sets; the validation is a number of windows."""

    steps: int
    batch_size: int
    validation: int
    target: float | None
    step_ms: float


SIZES = {
    "cpu": Size(400, 16, 128, 1.87, 15.0),
    "full": Size(STEPS, BATCH_SIZE, 2000, None, 120.0),
}

LEARNED = 2.0
"""A loss that takes memory: knowing how often a character follows the one before gives 2.5 nats."""

CLAIMS = (
    claim("ANDI tracks AdamW", "ANDI", "no worse", "AdamW", margin=0.03),
    claim(f"ANDI needs no clipping: without it, it ends below {LEARNED}", "ANDI", "better", LEARNED),
)


class CharacterLSTM(nn.Module):
    """An embedding, one LSTM layer and an output head."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, EMBEDDING)
        self.lstm = nn.LSTM(EMBEDDING, HIDDEN, batch_first=True)
        self.head = nn.Linear(HIDDEN, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map batch x time integers to batch x time x vocabulary logits, starting from a state of zeros."""
        hidden, _ = self.lstm(self.embedding(tokens))
        return self.head(hidden)


def model(characters: Characters) -> nn.Module:
    """Build the network for the vocabulary of the text."""
    return CharacterLSTM(characters.vocabulary)


def task(preset: str = "cpu") -> Task:
    """Return the task at a preset: ``"full"`` is the paper's length and batch, ``"cpu"`` a smaller one.

    Gradients are not clipped, as the paper says that ANDI needs no clipping; a race's ``--clip`` does it.
    """
    size = SIZES[preset]
    return Task(
        name="lstm",
        version="2",
        description=(
            f"characters of Tiny Shakespeare; LSTM, embedding {EMBEDDING}, hidden {HIDDEN}, "
            f"context {CONTEXT}; cross-entropy"
        ),
        data=shakespeare,
        model=model,
        batch=partial(windows, context=CONTEXT),
        loss=loss,
        evaluate=partial(evaluate, context=CONTEXT, count=size.validation),
        steps=size.steps,
        batch_size=size.batch_size,
        target=size.target,
        auxiliary=("embedding.*", "head.*"),
        step_ms=size.step_ms,
        settings={"context": CONTEXT, "validation": size.validation, "data": identity([TINY_SHAKESPEARE])},
        preset=preset,
        paper=andi_paper(part=EARLIER),
        claims=CLAIMS,
    )
