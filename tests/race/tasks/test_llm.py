"""Answers of causal models: what is counted, LoRA, folders, and the real path on a tiny model."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch.nn import functional as F

from steepest.race.contenders import parse_contender
from steepest.race.engine import Engine
from steepest.race.records import RaceError, RunRecord
from steepest.race.spec import make_spec
from steepest.race.task_text import load_task
from steepest.race.tasks import llm
from steepest.race.tasks.pretrained import quiet
from steepest.race.tasks.tiny_causal import python_help, tiny_model, tiny_tokenizer
from steepest.race.training import train

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")


@pytest.fixture(scope="session")
def causal(tmp_path_factory) -> str:
    """The tiny model as a folder, as if it were pretrained."""
    folder = tmp_path_factory.mktemp("causal")
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    with quiet(transformers):
        tiny_model(len(tokenizer)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def boolq(tmp_path, monkeypatch):
    """Statements whose answer is in the passage."""
    folder = tmp_path / "boolq"
    folder.mkdir()
    rows = [
        {"passage": f"It is {word}.", "question": "is it so", "answer": word == "true"}
        for word in ("true", "false")
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 10))
    (folder / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 3))
    monkeypatch.setenv("STEEPEST_DATA", str(tmp_path))
    monkeypatch.setenv("STEEPEST_CACHE", str(tmp_path / "cache"))


def run(text: str, lr: float = 3e-3, steps: int = 3, engine: Engine | None = None) -> RunRecord:
    task, contender = load_task(text), parse_contender("AdamW")
    spec = make_spec(
        text,
        task,
        contender,
        lr=lr,
        aux_lr=None,
        seed=1,
        phase="final",
        steps=steps,
        engine=engine or Engine(),
    )
    record = train(spec)
    assert record.status == "ok", record.error
    assert all(math.isfinite(value) for value in record.metrics.values())
    return record


def test_a_run_repeats_bit_for_bit() -> None:
    first, second = run("llm"), run("llm")
    assert first.val_curve == second.val_curve
    assert set(first.metrics) == {"val_loss"}
    assert first.val_curve[0][1] == pytest.approx(math.log(257), rel=0.05)


def test_lora_of_a_folder_on_multiple_choice(causal) -> None:
    text = f"llm(model={causal!r}, dataset='boolq', lora_rank=4)"
    task = load_task(text)
    model = task.model(task.data())
    assert all("lora_" in name for name, p in model.named_parameters() if p.requires_grad)
    assert task.headline == "val_accuracy"
    assert {c.metric for c in task.claims} == {"val_accuracy"}
    assert set(run(text).metrics) == {"val_loss", "val_accuracy"}


def test_it_learns(causal) -> None:
    record = run(f"llm(model={causal!r}, dataset='boolq', lora_rank=0)", lr=1e-2, steps=15)
    assert record.metrics["val_loss"] < 0.3 * record.val_curve[0][1]


class Says(torch.nn.Module):
    """Always finds one letter the likeliest."""

    def __init__(self, token: int) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(257).index_fill(0, torch.tensor(token), 5.0))

    def forward(self, input_ids, attention_mask):
        logits = self.logits.expand(*input_ids.shape, 257)
        return transformers.modeling_outputs.CausalLMOutput(logits=logits)


def test_the_likeliest_answer_counts(tmp_path) -> None:
    rows = [{"question": "?", "choices": ["aaa", "bb"], "answer": i} for i in (0, 0, 1)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 10))
    task = load_task("llm(dataset='mine.jsonl')")
    data = task.data()
    a, b = (tiny_tokenizer()(letter)["input_ids"][0] for letter in "ab")
    assert task.evaluate(Says(a), data)["val_accuracy"] == pytest.approx(2 / 3)
    assert task.evaluate(Says(b), data)["val_accuracy"] == pytest.approx(1 / 3)


def test_accumulated_parts_are_the_same_step(causal) -> None:
    """The loss is a mean over questions, so parts of unequal lengths weigh the same."""
    text = f"llm(model={causal!r}, dataset='boolq', lora_rank=0)"
    whole, parts = run(text), run(text, engine=Engine(accumulate=4))
    assert parts.metrics["val_loss"] == pytest.approx(whole.metrics["val_loss"], rel=1e-4)


def test_only_answers_count(causal) -> None:
    """Against one sum per row: -log p of each token of the answer and of the end of text, nothing else."""
    tokenizer = tiny_tokenizer()
    pairs = [("a prompt that is long", " yes"), ("short", " no, not at all")]
    rows = llm.encode(pairs, tokenizer, 64).take(torch.arange(2))
    torch.manual_seed(0)
    model = tiny_model(len(tokenizer)).eval()
    nats, count = llm.surprise(model, rows)
    for i, (prompt, answer) in enumerate(pairs):
        head, tail = (tokenizer(text)["input_ids"] for text in (prompt, answer))
        tail = [*tail, tokenizer.eos_token_id]
        logp = F.log_softmax(model(input_ids=torch.tensor([head + tail])).logits[0], -1)
        expected = -sum(logp[len(head) + j - 1, token] for j, token in enumerate(tail))
        torch.testing.assert_close(nats[i], torch.as_tensor(expected), rtol=1e-5, atol=1e-5)
        assert count[i] == len(tail)


def test_long_prompts_lose_their_beginning() -> None:
    tokenizer = tiny_tokenizer()
    rows = llm.encode([("0123456789", " ab"), ("0", " cdefghijklm")], tokenizer, 8)
    assert tokenizer.decode(rows.tokens[0, : rows.begin[0]]) == "6789"
    assert tokenizer.decode(rows.tokens[0, rows.begin[0] : rows.end[0] - 1]) == " ab"
    assert (rows.begin[1], rows.end[1]) == (1, 8)


def test_help_is_split_and_tokenized_without_loss() -> None:
    asked = python_help()
    assert len(asked.train) > 8 * len(asked.val) > 1000
    tokenizer, answer = tiny_tokenizer(), asked.val[0].answers[0]
    assert tokenizer.decode(tokenizer(answer)["input_ids"]) == answer
    assert len(tokenizer) == 257


def test_the_papers_settings(causal) -> None:
    for text in (f"llm(model={causal!r}, dataset='boolq')", "llm@full"):
        task = load_task(text)
        assert task.paper is not None
        assert (task.paper.steps, task.paper.batch_size, task.paper.seeds) == (1000, 4, (42, 123, 456))
        assert set(task.paper.swept.values()) == {(2e-4, 1e-4, 5e-5, 3e-5)}
        assert all(kwargs == {"weight_decay": 1e-4} for kwargs in task.paper.kwargs.values())
        assert (task.paper.schedule, task.paper.warmup) == ("linear", 0.1)
    assert (load_task("llm@full").steps, load_task("llm@full").batch_size) == (1000, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("dtype='float16'", "dtype must be one of auto, float32, bfloat16, got 'float16'"),
        ("max_length=4", "max_length must be a whole number of at least 8, got 4"),
        ("dataset=3", "dataset must be a name, a file or a folder, got 3"),
        ("lora_rank=True", "lora_rank must be a whole number"),
    ],
)
def test_options_out_of_range(options, message) -> None:
    with pytest.raises(RaceError, match=message):
        load_task(f"llm({options})")
