"""Fine-tuning a pretrained encoder on sentences of two classes: what SST-2 and CoLA have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steepest.race.data.identity import identity
from steepest.race.data.lookup import Source
from steepest.race.engine import to_device
from steepest.race.paper import Claim, Paper
from steepest.race.records import RaceError
from steepest.race.task import Task
from steepest.race.tasks import sentences
from steepest.race.tasks.frozen import layers_above
from steepest.race.tasks.lora import add_lora, check_rank
from steepest.race.tasks.pretrained import OFFLINE, layer_count, load_encoder, versions
from steepest.race.tasks.sentences import SUBSET_SEED, Choice, Split

CHUNK = 32
"""Sentences evaluated at once."""

SOURCE = "Preconditioned Norms (arXiv 2510.10777), GLUE"
RATES = (2e-5, 3e-4, 1e-3)
SWEPT = ("AdamW", "Muon", "MuAdam", "MuAdamSANIA")


@dataclass(frozen=True)
class Size:
    """What a preset sets.

    Args:
        layers: of the encoder, from the embeddings up; None is all.
        trained: how many of them, from the top, are trained; None is all, and the embeddings.
        lora_rank: of the adapters; 0 trains the weights themselves.
        steps: of a run.
        batch_size: sentences in a batch.
        choice: which sentences, cut after how many tokens.
        target: validation loss of a tuned AdamW.
        step_ms: what a step costs.
    """

    layers: int | None
    trained: int | None
    lora_rank: int
    steps: int
    batch_size: int
    choice: Choice
    target: float | None
    step_ms: float


@dataclass(frozen=True)
class Corpus:
    """A set of sentences, and what is said of it.

    Args:
        name: of the task.
        called: for people.
        source: its files.
        margins: the metrics that are compared, the paper's first, and the difference in each up to which
            results count as equal.
        sizes: by preset.
    """

    name: str
    called: str
    source: Source
    margins: Mapping[str, float]
    sizes: Mapping[str, Size]

    def claims(self) -> tuple[Claim, ...]:
        """Return the paper's claims: MuAdam keeps up."""
        return tuple(
            Claim(
                SOURCE,
                f"MuAdam is competitive with {other} ({metric})",
                "MuAdam",
                "no worse",
                other,
                metric,
                margin,
            )
            for metric, margin in self.margins.items()
            for other in ("AdamW", "Muon")
        )


class Classifier(nn.Module):
    """An encoder, the mean of its outputs over a sentence's tokens, and a new linear head."""

    def __init__(self, encoder: nn.Module, width: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, 2)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Map token ids (b, t), or outputs of frozen layers (b, t, width), and a mask (b, t) to logits."""
        taken_as = "inputs_embeds" if rows.is_floating_point() else "input_ids"
        outputs = self.encoder(**{taken_as: rows, "attention_mask": mask}).last_hidden_state
        counted = mask[:, :, None].to(outputs.dtype)
        mean = (outputs * counted).sum(1) / counted.sum(1)
        return self.head(self.dropout(mean))


def frozen_layers(model_name: str, kept: int | None, trained: int | None) -> int | None:
    """Return how many layers above the embeddings are not trained; None if all is trained."""
    if trained is None:
        return None
    return max(0, (kept or layer_count(model_name)) - trained)


def data(source: Source, model_name: str, kept: int | None, size: Size) -> Split:
    """Load the sentences, as far as frozen layers take them."""
    frozen = frozen_layers(model_name, kept, size.trained)
    return sentences.load(source, model_name, size.choice, frozen)


def model(model_name: str, kept: int | None, trained: int | None, rank: int, _: Split) -> nn.Module:
    """Build what is trained of a pretrained encoder, by adapters alone with a rank, and a new head."""
    encoder: Any = load_encoder(model_name, kept)
    config = encoder.config
    frozen = frozen_layers(model_name, kept, trained)
    if frozen is not None:
        encoder = layers_above(encoder, frozen, model_name)
    if rank:
        encoder = add_lora(encoder, rank)
    return Classifier(encoder, config.hidden_size, getattr(config, "hidden_dropout_prob", 0.1))


def batch(split: Split, generator: torch.Generator, batch_size: int) -> dict[str, Tensor]:
    """Draw sentences with replacement."""
    return split.train.take(torch.randint(len(split.train.labels), (batch_size,), generator=generator))


def loss(network: nn.Module, drawn: Mapping[str, Tensor]) -> Tensor:
    """Cross-entropy in nats."""
    return F.cross_entropy(network(drawn["rows"], drawn["mask"]), drawn["labels"])


def evaluate(network: nn.Module, split: Split) -> dict[str, float]:
    """Cross-entropy, accuracy and Matthews' correlation on the validation sentences."""
    from sklearn.metrics import matthews_corrcoef

    device = next(network.parameters()).device
    logits = []
    for index in torch.arange(len(split.val.labels)).split(CHUNK):
        part = to_device(split.val.take(index), device)
        logits.append(network(part["rows"], part["mask"]).float().cpu())
    scores, labels = torch.cat(logits), split.val.labels
    guessed = scores.argmax(1)
    return {
        "val_loss": F.cross_entropy(scores, labels).item(),
        "val_accuracy": (guessed == labels).float().mean().item(),
        "matthews": float(matthews_corrcoef(labels.numpy(), guessed.numpy())),
    }


def glue_task(
    corpus: Corpus, preset: str, *, model_name: str, lora_rank: int | None, layers: int | None
) -> Task:
    """Return a fine-tuning task; ``sst2`` and ``cola`` say what each argument means.

    Raises:
        RaceError: an option is out of its range, or a library is missing.
    """
    size = corpus.sizes[preset]
    rank = check_rank(size.lora_rank if lora_rank is None else lora_rank)
    if not isinstance(model_name, str) or not model_name:
        raise RaceError(f"model must be a folder or a name of the Hugging Face hub, got {model_name!r}")
    if layers is not None and (isinstance(layers, bool) or not isinstance(layers, int) or layers < 1):
        raise RaceError(f"layers must be a whole number of at least 1, got {layers!r}")
    kept = size.layers if layers is None else layers
    encoder = _encoder(model_name, kept, size.trained, rank)
    usual = (model_name, rank, kept) == (OFFLINE, size.lora_rank, size.layers)
    return Task(
        name=_name(corpus, size, rank, model_name),
        version="2",
        description=f"{corpus.called}; {encoder}, new head; cross-entropy",
        data=partial(data, corpus.source, model_name, kept, size),
        model=partial(model, model_name, kept, size.trained, rank),
        batch=batch,
        loss=loss,
        evaluate=evaluate,
        steps=size.steps,
        batch_size=size.batch_size,
        target=size.target if usual else None,
        auxiliary=("*embed*", "head.*"),
        step_ms=size.step_ms,
        settings={
            "model": model_name,
            "layers": kept,
            "trained_layers": size.trained,
            "lora_rank": rank,
            "sentences": (*size.choice, SUBSET_SEED),
            "data": identity([corpus.source]),
            "libraries": versions("transformers", *(["peft"] if rank else [])),
        },
        preset=preset,
        paper=Paper(
            source=f"{SOURCE}: learning rates, schedule, warm-up; steps, batch and seeds are this project's",
            steps=size.steps,
            batch_size=size.batch_size,
            seeds=(42, 123, 456),
            swept=dict.fromkeys(SWEPT, RATES),
            schedule="linear",
            warmup=0.1,
        ),
        claims=corpus.claims(),
        headline=next(iter(corpus.margins)),
        lr_scale=0.03,
        schedule="linear",
        warmup=0.1,
    )


def _name(corpus: Corpus, size: Size, rank: int, model_name: str) -> str:
    """Return the corpus' name and what differs from its preset: the way of training, the model."""
    told = [] if bool(rank) == bool(size.lora_rank) else ["lora" if rank else "weights"]
    return "-".join([corpus.name, *told, *([] if model_name == OFFLINE else [Path(model_name).name])])


def _encoder(model_name: str, kept: int | None, trained: int | None, rank: int) -> str:
    """Say in words what is trained of which encoder."""
    layers = f", first {kept} layers" if kept else ""
    which = "all" if trained is None else f"the top {trained}"
    how = f"LoRA of rank {rank}" if rank else "weights"
    return f"{model_name}{layers}; {how} in {which}"
