"""A causal language model learns to answer instructions or multiple choice: all of its weights, or LoRA."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steepest.race.data.identity import identity
from steepest.race.data.lookup import present
from steepest.race.engine import to_device
from steepest.race.paper import Claim, Paper
from steepest.race.records import RaceError
from steepest.race.task import Task
from steepest.race.tasks import questions
from steepest.race.tasks.lora import add_lora, check_rank
from steepest.race.tasks.pretrained import load, load_tokenizer, versions
from steepest.race.tasks.questions import Question, Questions
from steepest.race.tasks.tiny_causal import (
    HELP,
    TINY,
    python_help,
    tiny_model,
    tiny_tokenizer,
    with_own_tables,
)
from steepest.spelling import suggest

SOURCE = "Preconditioned Norms (arXiv 2510.10777), LoRA on Qwen2-7B"
RATES = (2e-4, 1e-4, 5e-5, 3e-5)
SWEPT = ("AdamW", "Muon", "MuAdam", "MuAdamSANIA")
WEIGHT_DECAY = 1e-4
MARGIN = 0.02
"""Accuracy up to which results count as equal."""

STEPS = {"cpu": 150, "full": 1000}
BATCH_SIZE = {"cpu": 4, "full": 4}
VALIDATION = {"cpu": 32, "full": 500}
CHUNK = 16
DTYPES = ("auto", "float32", "bfloat16")
IGNORED = -100
"""The label of a token that is not predicted."""


class Answers(NamedTuple):
    """Prompts with an answer: token ids (n, t) padded at the end, where the answer begins and ends (n,)."""

    tokens: Tensor
    begin: Tensor
    end: Tensor

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """Return rows as a batch as wide as its longest; labels are the tokens of answers."""
        end = self.end[index][:, None]
        width = int(end.max())
        tokens, at = self.tokens[index, :width], torch.arange(width)
        answer = (at >= self.begin[index][:, None]) & (at < end)
        return {"tokens": tokens, "mask": (at < end).long(), "labels": tokens.where(answer, IGNORED)}


class Encoded(NamedTuple):
    """Right answers to train on; all answers to validate with, their questions, and which are right."""

    train: Answers
    val: Answers
    question: Tensor
    correct: Tensor
    vocabulary: int


def data(model_name: str, dataset: str, max_length: int, validation: int) -> Encoded:
    """Load and tokenize the questions, once per process."""
    path = None if dataset == HELP else present(questions.source_of(dataset))
    return _load(path, model_name, dataset, max_length, validation)


@lru_cache(maxsize=2)
def _load(_: Path | None, model_name: str, dataset: str, max_length: int, validation: int) -> Encoded:
    found: Questions = python_help() if dataset == HELP else questions.load(dataset)
    tokenizer = tiny_tokenizer() if model_name == TINY else load_tokenizer(model_name)
    asked = _spread(found.val, validation)
    return Encoded(
        encode(((q.prompt, q.answers[q.correct]) for q in found.train), tokenizer, max_length),
        encode(((q.prompt, answer) for q in asked for answer in q.answers), tokenizer, max_length),
        torch.tensor([i for i, q in enumerate(asked) for _ in q.answers]),
        torch.tensor([a == q.correct for q in asked for a in range(len(q.answers))]),
        len(tokenizer),
    )


def _spread(asked: list[Question], most: int) -> list[Question]:
    """Return at most so many, spread evenly."""
    return asked if len(asked) <= most else [asked[i * len(asked) // most] for i in range(most)]


def encode(pairs: Iterable[tuple[str, str]], tokenizer: Any, max_length: int) -> Answers:
    """Tokenize prompts and answers; answers get an end of text, long prompts lose their beginning."""
    prompts, answers = zip(*pairs, strict=True)
    ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    rows, begin = [], []
    heads = tokenizer(list(prompts))["input_ids"]
    tails = tokenizer(list(answers), add_special_tokens=False)["input_ids"]
    for head, tail in zip(heads, tails, strict=True):
        answer = [*tail, *ends][: max_length - 1]
        kept = head[max(0, len(head) - (max_length - len(answer))) :]
        rows.append(kept + answer)
        begin.append(len(kept))
    end = torch.tensor([len(row) for row in rows])
    tokens = torch.zeros(len(rows), int(end.max()), dtype=torch.long)
    tokens[torch.arange(tokens.shape[1]) < end[:, None]] = torch.tensor([t for row in rows for t in row])
    return Answers(tokens, torch.tensor(begin), end)


def model(model_name: str, rank: int, dtype: str, encoded: Encoded) -> nn.Module:
    """Build the model; with a rank, of pretrained weights in `dtype` beside adapters in float32."""
    if model_name == TINY:
        network: Any = tiny_model(encoded.vocabulary)
        return with_own_tables(add_lora(network, rank)) if rank else network
    wanted = dtype if dtype == "auto" else getattr(torch, dtype)
    network = load(model_name, lambda t: t.AutoModelForCausalLM.from_pretrained, dtype=wanted)
    network.config.use_cache = False
    return (add_lora(network, rank) if rank else network).train()


def batch(encoded: Encoded, generator: torch.Generator, batch_size: int) -> dict[str, Tensor]:
    """Draw questions with replacement."""
    return encoded.train.take(torch.randint(len(encoded.train.end), (batch_size,), generator=generator))


def surprise(network: nn.Module, drawn: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return of each row the sum of -log p over its answer's tokens, in nats, and how many those are."""
    logits = network(input_ids=drawn["tokens"], attention_mask=drawn["mask"]).logits[:, :-1]
    labels = drawn["labels"][:, 1:]
    each = F.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return each.sum(1), (labels != IGNORED).sum(1)


def loss(network: nn.Module, drawn: Mapping[str, Tensor]) -> Tensor:
    """Mean over questions of the mean over an answer's tokens: accumulated parts give the same."""
    nats, count = surprise(network, drawn)
    return (nats / count).mean()


def evaluate(network: nn.Module, encoded: Encoded) -> dict[str, float]:
    """The loss of right answers; with several to choose from, how often the right one is the likeliest."""
    device = next(network.parameters()).device
    chunks = torch.arange(len(encoded.val.end)).split(CHUNK)
    parts = [surprise(network, to_device(encoded.val.take(index), device)) for index in chunks]
    nats, count = (torch.cat([part[i].cpu() for part in parts]) for i in range(2))
    right = encoded.correct
    metrics = {"val_loss": (nats[right] / count[right]).mean().item()}
    if not right.all():
        least = torch.full((int(encoded.question.max()) + 1,), torch.inf)
        least = least.scatter_reduce(0, encoded.question, nats, "amin")
        metrics["val_accuracy"] = (nats[right] <= least[encoded.question[right]]).float().mean().item()
    return metrics


def task(
    preset: str = "cpu",
    *,
    model: str = TINY,
    dataset: str = HELP,
    lora_rank: int = 16,
    max_length: int | None = None,
    dtype: str = "auto",
) -> Task:
    """Return the task at a preset: "cpu" is 150 steps of 4 questions, "full" the paper's 1,000 of 4.

    Args:
        preset: see above. With "full", ``--accumulate 4`` passes one question at a time as the paper does.
        model: "tiny", a random model of width 64 on bytes; a folder; or a name of the Hugging Face hub.
        dataset: "help", Python's own help texts; "boolq", "hellaswag" or "arc-challenge", folders of that
            name within the data folder; or a file or folder of JSON lines (see
            :mod:`steepest.race.tasks.questions`).
        lora_rank: rank of the adapters on every linear layer; 0 trains all weights. Default 16.
        max_length: tokens of prompt and answer; longer prompts lose their beginning. Default 128 for the tiny
            model, else 512.
        dtype: of pretrained weights: "auto" (the file's), "float32" or "bfloat16". Adapters are float32.

    Raises:
        RaceError: an option is out of its range, or a library is missing.
    """
    rank = check_rank(lora_rank)
    for name, value in (("model", model), ("dataset", dataset)):
        if not isinstance(value, str) or not value:
            raise RaceError(f"{name} must be a name, a file or a folder, got {value!r}")
    if dtype not in DTYPES:
        raise RaceError(
            f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}{suggest(str(dtype), list(DTYPES))}"
        )
    length = (128 if model == TINY else 512) if max_length is None else max_length
    if isinstance(length, bool) or not isinstance(length, int) or length < 8:
        raise RaceError(f"max_length must be a whole number of at least 8, got {max_length!r}")
    choice = dataset in questions.KNOWN
    trained = f"LoRA of rank {rank}" if rank else "all weights"
    if rank and model == TINY:
        trained += ", tables of tokens, norms"
    return Task(
        name=_name(model, dataset, rank),
        version="2",
        description=f"{Path(dataset).stem}: prompts, answers; causal model {model}; {trained}; cross-entropy",
        data=partial(data, model, dataset, length, VALIDATION[preset]),
        model=partial(_model, model, rank, dtype),
        batch=batch,
        loss=loss,
        evaluate=evaluate,
        steps=STEPS[preset],
        batch_size=BATCH_SIZE[preset],
        auxiliary=("*embed*", "*lm_head*"),
        step_ms=60.0 if model == TINY else 10_000.0,
        settings={
            "model": model,
            "dataset": dataset,
            "lora_rank": rank,
            "max_length": length,
            "dtype": dtype,
            "validation": VALIDATION[preset],
            "data": _fingerprint() if dataset == HELP else identity([questions.source_of(dataset)]),
            "libraries": versions("transformers", *(["peft"] if rank else [])),
        },
        preset=preset,
        paper=Paper(
            source=SOURCE,
            steps=STEPS["full"],
            batch_size=4,
            seeds=(42, 123, 456),
            swept=dict.fromkeys(SWEPT, RATES),
            kwargs={name: {"weight_decay": WEIGHT_DECAY} for name in SWEPT},
            schedule="linear",
            warmup=0.1,
        ),
        claims=tuple(
            Claim(SOURCE, f"MuAdam is competitive with {o}", "MuAdam", "no worse", o, "val_accuracy", MARGIN)
            for o in ("AdamW", "Muon")
            if choice
        ),
        headline="val_accuracy" if choice else "val_loss",
        schedule="linear",
        lr_scale=1.0 if model == TINY else 0.03,
        warmup=0.1,
    )


_model = model  # the task's option of the same name hides it


def _name(model_name: str, dataset: str, rank: int) -> str:
    told = [] if model_name == TINY else [Path(model_name).name]
    told += [] if dataset == HELP else [Path(dataset).stem]
    return "-".join(["llm", *told, *([] if rank else ["all"])])


def _fingerprint() -> str:
    """Return a hash of Python's help texts, which differ between versions of Python."""
    return hashlib.sha256(repr(python_help()).encode()).hexdigest()[:12]
