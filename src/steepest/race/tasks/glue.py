"""Fine-tuning a pretrained encoder on sentences of two classes: what SST-2 and CoLA have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steepest.race.data import glue
from steepest.race.data.identity import identity
from steepest.race.data.lookup import Source, find
from steepest.race.engine import to_device
from steepest.race.paper import Claim, Paper
from steepest.race.records import RaceError
from steepest.race.task import Task
from steepest.race.tasks.lora import add_lora, check_rank
from steepest.race.tasks.pretrained import OFFLINE, load_encoder, load_tokenizer, versions

SUBSET_SEED = 0
CHUNK = 32
"""Sentences evaluated at once."""

SOURCE = "Preconditioned Norms (arXiv 2510.10777), GLUE"
RATES = (2e-5, 3e-4, 1e-3)
SWEPT = ("AdamW", "Muon", "MuAdam", "MuAdamSANIA")


class Sentences(NamedTuple):
    """Token ids (n, t) padded with zeros, how many of each row count (n,), and classes (n,)."""

    tokens: Tensor
    lengths: Tensor
    labels: Tensor

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """Return sentences as a batch as wide as its longest."""
        lengths = self.lengths[index]
        width = int(lengths.max())
        mask = (torch.arange(width) < lengths[:, None]).long()
        return {"tokens": self.tokens[index, :width], "mask": mask, "labels": self.labels[index]}


class Split(NamedTuple):
    """Sentences for training, and for validation ordered by length."""

    train: Sentences
    val: Sentences


@dataclass(frozen=True)
class Size:
    """What a preset sets.

    Args:
        layers: of the encoder, from the embeddings up; None is all.
        train_embeddings: whether the table of tokens is trained (most of a small model's weights are in it).
        steps: of a run.
        max_length: tokens, after which a sentence is cut.
        train, validation: at most so many sentences, drawn once and for all; None is all.
        target: validation loss of a tuned AdamW.
        step_ms: what a step costs.
    """

    layers: int | None
    train_embeddings: bool
    steps: int
    max_length: int
    train: int | None
    validation: int | None
    target: float | None
    step_ms: float


class Classifier(nn.Module):
    """An encoder, the mean of its outputs over a sentence's tokens, and a new linear head."""

    def __init__(self, encoder: nn.Module, width: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, 2)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Map token ids and their mask (b, t) to logits (b, 2)."""
        outputs = self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        counted = mask[:, :, None].to(outputs.dtype)
        mean = (outputs * counted).sum(1) / counted.sum(1)
        return self.head(self.dropout(mean))


def data(source: Source, model_name: str, size: Size) -> Split:
    """Load and tokenize the sentences, once per process."""
    return _load(find(source), source, model_name, size.max_length, size.train, size.validation)


@lru_cache(maxsize=4)
def _load(
    _: Path, source: Source, model_name: str, max_length: int, train: int | None, validation: int | None
) -> Split:
    parts = glue.load(source)
    tokenizer = load_tokenizer(model_name)
    return Split(
        _tokenized(parts.train, tokenizer, max_length, train),
        _by_length(_tokenized(parts.dev, tokenizer, max_length, validation)),
    )


def _tokenized(part: glue.Sentences, tokenizer: Any, max_length: int, most: int | None) -> Sentences:
    count = len(part.labels)
    index = torch.randperm(count, generator=torch.Generator().manual_seed(SUBSET_SEED))[:most].tolist()
    rows = tokenizer([part.sentences[i] for i in index], truncation=True, max_length=max_length)["input_ids"]
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
    tokens[torch.arange(tokens.shape[1]) < lengths[:, None]] = torch.tensor([t for row in rows for t in row])
    return Sentences(tokens, lengths, torch.tensor([part.labels[i] for i in index]))


def _by_length(sentences: Sentences) -> Sentences:
    """Order by length: chunks of an evaluation then hold little padding."""
    order = sentences.lengths.argsort(stable=True)
    return Sentences(*(x[order] for x in sentences))


def model(model_name: str, layers: int | None, rank: int, train_embeddings: bool, _: Split) -> nn.Module:
    """Build a pretrained encoder with a new head; with a rank, the encoder is trained by adapters alone."""
    encoder: Any = load_encoder(model_name, layers)
    config = encoder.config
    if rank:
        encoder = add_lora(encoder, rank)
    elif not train_embeddings:
        encoder.get_input_embeddings().weight.requires_grad_(False)
    return Classifier(encoder, config.hidden_size, getattr(config, "hidden_dropout_prob", 0.1))


def batch(split: Split, generator: torch.Generator, batch_size: int) -> dict[str, Tensor]:
    """Draw sentences with replacement."""
    return split.train.take(torch.randint(len(split.train.labels), (batch_size,), generator=generator))


def loss(network: nn.Module, drawn: Mapping[str, Tensor]) -> Tensor:
    """Cross-entropy in nats."""
    return F.cross_entropy(network(drawn["tokens"], drawn["mask"]), drawn["labels"])


def evaluate(network: nn.Module, split: Split) -> dict[str, float]:
    """Cross-entropy, accuracy and Matthews' correlation on the validation sentences."""
    from sklearn.metrics import matthews_corrcoef

    device = next(network.parameters()).device
    logits = []
    for index in torch.arange(len(split.val.labels)).split(CHUNK):
        part = to_device(split.val.take(index), device)
        logits.append(network(part["tokens"], part["mask"]).float().cpu())
    scores, labels = torch.cat(logits), split.val.labels
    guessed = scores.argmax(1)
    return {
        "val_loss": F.cross_entropy(scores, labels).item(),
        "val_accuracy": (guessed == labels).float().mean().item(),
        "matthews": float(matthews_corrcoef(labels.numpy(), guessed.numpy())),
    }


def glue_task(
    name: str,
    what: str,
    source: Source,
    size: Size,
    claims: tuple[Claim, ...],
    *,
    preset: str,
    headline: str,
    model_name: str = OFFLINE,
    lora_rank: int = 0,
    layers: int | None = None,
    batch_size: int = 16,
) -> Task:
    """Return a fine-tuning task; ``sst2`` and ``cola`` say what each argument means.

    Raises:
        RaceError: an option is out of its range, or a library is missing.
    """
    rank = check_rank(lora_rank)
    if not isinstance(model_name, str) or not model_name:
        raise RaceError(f"model must be a folder or a name of the Hugging Face hub, got {model_name!r}")
    if layers is not None and (isinstance(layers, bool) or not isinstance(layers, int) or layers < 1):
        raise RaceError(f"layers must be a whole number of at least 1, got {layers!r}")
    kept = layers if layers is not None else size.layers
    part = f", first {kept} layers" if kept else ""
    trained = f"LoRA of rank {rank}" if rank else "all weights"
    if not rank and not size.train_embeddings:
        trained = "all weights but the table of tokens"
    return Task(
        name="-".join([name, *(["lora"] if rank else []), *_short(model_name)]),
        version="1",
        description=f"{what}; {model_name}{part}, new head; {trained}; cross-entropy",
        data=partial(data, source, model_name, size),
        model=partial(model, model_name, kept, rank, size.train_embeddings),
        batch=batch,
        loss=loss,
        evaluate=evaluate,
        steps=size.steps,
        batch_size=batch_size,
        target=size.target if model_name == OFFLINE and not rank else None,
        auxiliary=("*embed*", "head.*"),
        step_ms=size.step_ms,
        settings={
            "model": model_name,
            "layers": kept,
            "lora_rank": rank,
            "train_embeddings": size.train_embeddings and not rank,
            "max_length": size.max_length,
            "sentences": (size.train, size.validation, SUBSET_SEED),
            "data": identity([source]),
            "libraries": versions("transformers", *(["peft"] if rank else [])),
        },
        preset=preset,
        paper=Paper(
            source=f"{SOURCE}: learning rates, schedule, warm-up; steps, batch and seeds are this project's",
            steps=size.steps,
            batch_size=batch_size,
            seeds=(42, 123, 456),
            swept=dict.fromkeys(SWEPT, RATES),
            schedule="linear",
            warmup=0.1,
        ),
        claims=claims,
        headline=headline,
        lr_scale=0.03,
        schedule="linear",
        warmup=0.1,
    )


def _short(model_name: str) -> list[str]:
    """Return what a model adds to a task's name: nothing for the offline one, else the end of its name."""
    return [] if model_name == OFFLINE else [Path(model_name).name]


def competitive(metric: str, margin: float) -> tuple[Claim, ...]:
    """Return the paper's claims about a GLUE task: MuAdam keeps up, within a margin in the metric's unit."""
    return tuple(
        Claim(SOURCE, f"MuAdam is competitive with {other}", "MuAdam", "no worse", other, metric, margin)
        for other in ("AdamW", "Muon")
    )
