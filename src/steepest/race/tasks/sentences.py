"""Sentences of two classes as tensors: tokenized, cut, through the frozen layers of an encoder."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from steepest.race.data import glue
from steepest.race.data.lookup import Source, find
from steepest.race.tasks.frozen import outputs_below
from steepest.race.tasks.pretrained import load_tokenizer

SUBSET_SEED = 0


class Sentences(NamedTuple):
    """Rows (n, t) padded with zeros, how many of each count (n,), and classes (n,).

    A row is of token ids, or (n, t, width) of what frozen layers make of them.
    """

    rows: Tensor
    lengths: Tensor
    labels: Tensor

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """Return sentences as a batch as wide as its longest."""
        lengths = self.lengths[index]
        width = int(lengths.max())
        mask = (torch.arange(width) < lengths[:, None]).long()
        return {"rows": self.rows[index, :width], "mask": mask, "labels": self.labels[index]}


class Split(NamedTuple):
    """Sentences for training, and for validation ordered by length."""

    train: Sentences
    val: Sentences


class Choice(NamedTuple):
    """Which sentences, and how much of them.

    Args:
        max_length: tokens, after which a sentence is cut.
        train, validation: at most so many sentences, drawn once and for all; None is all.
        balanced: whether both classes are made equally frequent, by leaving out of the larger one.
    """

    max_length: int
    train: int | None
    validation: int | None
    balanced: bool = False


def load(source: Source, model: str, choice: Choice, frozen: int | None) -> Split:
    """Load and tokenize sentences, and compute so many frozen layers (None: none), once per process."""
    return _load(find(source), source, model, choice, frozen)


@lru_cache(maxsize=4)
def _load(_: Path, source: Source, model: str, choice: Choice, frozen: int | None) -> Split:
    parts = glue.load(source)
    tokenizer = load_tokenizer(model)
    split = Split(
        _tokenized(parts.train, tokenizer, choice, choice.train),
        _by_length(_tokenized(parts.dev, tokenizer, choice, choice.validation)),
    )
    if frozen is None:
        return split
    return Split(*(s._replace(rows=outputs_below(model, frozen, s.rows, s.lengths)) for s in split))


def _tokenized(part: glue.Sentences, tokenizer: Any, choice: Choice, most: int | None) -> Sentences:
    labels = torch.tensor(part.labels)
    index = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SUBSET_SEED))
    if choice.balanced:
        index = _balanced(index, labels)
    index = index[:most]
    texts = [part.sentences[i] for i in index.tolist()]
    ids = tokenizer(texts, truncation=True, max_length=choice.max_length)["input_ids"]
    lengths = torch.tensor([len(row) for row in ids])
    rows = torch.zeros(len(ids), int(lengths.max()), dtype=torch.long)
    rows[torch.arange(rows.shape[1]) < lengths[:, None]] = torch.tensor([t for row in ids for t in row])
    return Sentences(rows, lengths, labels[index])


def _balanced(index: Tensor, labels: Tensor) -> Tensor:
    """Return as many of each class, in turns, so that any even number from the start is balanced too."""
    classes = [index[labels[index] == label] for label in (0, 1)]
    count = min(map(len, classes))
    return torch.stack([c[:count] for c in classes], 1).flatten()


def _by_length(sentences: Sentences) -> Sentences:
    """Order by length: chunks of an evaluation then hold little padding."""
    order = sentences.lengths.argsort(stable=True)
    return Sentences(*(x[order] for x in sentences))
