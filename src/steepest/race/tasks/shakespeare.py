"""Transformers on the characters of Tiny Shakespeare, as tasks."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from torch import nn

from steepest.race.data.identity import identity
from steepest.race.data.sources import TINY_SHAKESPEARE
from steepest.race.data.text import Characters
from steepest.race.task import Task
from steepest.race.tasks.characters import evaluate, loss, shakespeare, windows
from steepest.race.tasks.transformer import AUXILIARY, Transformer


class Size(NamedTuple):
    """What a preset sets; the width is that of the residual stream, the validation a number of windows."""

    layers: int
    heads: int
    width: int
    context: int
    steps: int
    batch_size: int
    validation: int
    target: float | None
    step_ms: float
    dropout: float = 0.0


def model(characters: Characters, *, size: Size) -> nn.Module:
    """Build the transformer for the vocabulary of the text."""
    return Transformer(
        characters.vocabulary,
        context=size.context,
        width=size.width,
        heads=size.heads,
        layers=size.layers,
        dropout=size.dropout,
    )


def transformer_task(name: str, size: Size, **further: Any) -> Task:
    """Return the task of a transformer of this size; ``further`` are other fields of `Task`."""
    dropout = f", dropout {size.dropout:g}" if size.dropout else ""
    return Task(
        name=name,
        version="2",
        description=(
            f"characters of Tiny Shakespeare; causal transformer, {size.layers} layers, width {size.width}, "
            f"{size.heads} heads, context {size.context}{dropout}; cross-entropy"
        ),
        data=shakespeare,
        model=partial(model, size=size),
        batch=partial(windows, context=size.context),
        loss=loss,
        evaluate=partial(evaluate, context=size.context, count=size.validation),
        steps=size.steps,
        batch_size=size.batch_size,
        target=size.target,
        auxiliary=AUXILIARY,
        step_ms=size.step_ms,
        settings={
            "layers": size.layers,
            "heads": size.heads,
            "width": size.width,
            "context": size.context,
            "dropout": size.dropout,
            "validation": size.validation,
            "data": identity([TINY_SHAKESPEARE]),
        },
        **further,
    )
