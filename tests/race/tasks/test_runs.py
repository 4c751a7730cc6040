"""Every task trains, repeats bit for bit, and says of itself what is true."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase

import pytest
import torch

from steepest.race.contenders import parse_contender
from steepest.race.engine import to_device
from steepest.race.records import RunRecord
from steepest.race.spec import make_spec
from steepest.race.task_text import load_task
from steepest.race.tasks import andi_paper
from steepest.race.training import train

TEXTS = (
    "saddle",
    "cifar",
    "cifar(plain=True)",
    "gpt",
    "mlp",
    "autoencoder",
    "autoencoder(dataset='fashion-mnist')",
    "cnn",
    "lstm",
    "charlm",
)
WEIGHTS = {
    "saddle": 2 * (784 * 256 + 256 * 64 + 64 * 16) + (256 + 64 + 16 + 64 + 256 + 784),
    "cifar": 6_568_640 + 10 + 2 * (64 + 3 * 128 + 256 + 3 * 512),
    "gpt": 4 * (12 * 128**2 + 9 * 128) + 2 * 128 + (64 + 65 + 65) * 128,
    "mlp": 785 * 512 + 513 * 256 + 257 * 10,
    "autoencoder": 2 * (784 * 128 + 128 * 32) + (128 + 32 + 128 + 784),
    "cnn": 28 * 32 + 289 * 64 + 4097 * 128 + 129 * 10,
    "lstm": 65 * 64 + 512 * (64 + 128 + 2) + 129 * 65,
    "charlm": 6 * (12 * 384**2 + 9 * 384) + 2 * 384 + (256 + 65 + 65) * 384,
}


def run(text: str, optimizer: str = "AdamW", steps: int = 2, lr: float = 1e-3) -> RunRecord:
    contender = parse_contender(optimizer)
    aux_lr = 1e-3 if contender.is_hybrid() else None
    return train(
        make_spec(text, load_task(text), contender, lr=lr, aux_lr=aux_lr, seed=1, phase="final", steps=steps)
    )


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("optimizer", ["AdamW", "Muon"])
def test_a_run_repeats_bit_for_bit(data, text, optimizer) -> None:
    first, second = run(text, optimizer), run(text, optimizer)
    assert first.status == "ok", first.error
    assert (first.train_curve, first.val_curve, first.metrics) == (
        second.train_curve,
        second.val_curve,
        second.metrics,
    )
    assert all(math.isfinite(value) for value in first.metrics.values())
    assert load_task(text).headline in first.metrics


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("preset", ["cpu", "full"])
def test_what_a_task_declares(data, text, preset) -> None:
    name, bracket, options = text.partition("(")
    task = load_task(f"{name}@{preset}{bracket}{options}")
    assert task.preset == preset
    model = task.model(task.data())
    names = [name for name, p in model.named_parameters() if p.ndim > 1]
    for pattern in task.auxiliary:
        assert any(fnmatchcase(name, pattern) for name in names), pattern
    assert not all(task.is_auxiliary(name) for name in names)
    assert task.claims
    assert {c.relation for c in task.claims} <= {"better", "no worse", "equal"}
    for claim in task.claims:
        parse_contender(claim.left)
        if isinstance(claim.right, str):
            parse_contender(claim.right)


@pytest.mark.parametrize("name", WEIGHTS)
def test_full_presets_have_the_papers_models(data, name) -> None:
    task = load_task(f"{name}@full")
    found = task.data()
    if hasattr(found, "vocabulary"):
        found = found._replace(vocabulary=65)  # that of the real text
    assert sum(p.numel() for p in task.model(found).parameters()) == WEIGHTS[name]


@pytest.mark.parametrize("name", ["saddle", "cifar", "gpt", "mlp", "autoencoder", "cnn", "lstm"])
def test_the_papers_settings(data, name) -> None:
    paper = load_task(f"{name}@full").paper
    assert paper is not None
    assert (paper.steps, paper.batch_size, paper.seeds) == (2500, 128, (42, 1337))
    assert paper.swept == {"ANDI": (0.2, 0.1, 0.05, 0.02, 0.01, 0.005)}
    assert paper.fixed == {"AdamW": 3e-4 if name == "gpt" else 1e-3, "Muon": 0.02 if name == "gpt" else 0.05}
    assert ("earlier" in paper.source) == (name in ("mlp", "autoencoder", "cnn", "lstm"))
    assert andi_paper.SOURCE in paper.source


def test_names_tell_variants_apart(data) -> None:
    assert len({load_task(text).name for text in TEXTS}) == len(TEXTS)


@pytest.mark.parametrize("name", ["gpt", "cifar"])
def test_a_plain_loop_gives_the_same_losses(data, name) -> None:
    """The race adds nothing to training: torch's AdamW by hand, the rates of the schedule by hand."""
    steps, lr, seed = 4, 1e-3, 1
    record = run(name, steps=steps, lr=lr)
    task = load_task(name)
    found = task.data()
    torch.manual_seed(seed)
    model = task.model(found)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for done in range(steps):
        optimizer.param_groups[0]["lr"] = lr * (1 - done / steps)
        optimizer.zero_grad()
        loss = task.loss(model, task.batch(found, generator, task.batch_size))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        metrics = task.evaluate(model, found)
    assert record.train_curve == tuple(enumerate(losses, 1))
    assert record.metrics == metrics


@pytest.mark.parametrize(("name", "lr"), [("saddle", 3e-3), ("gpt", 3e-3)])
def test_it_learns_real_data(real_data, name, lr) -> None:
    record = run(name, steps=30, lr=lr)
    assert record.status == "ok", record.error
    assert record.final_loss < 0.8 * record.val_curve[0][1]


def test_the_loss_is_computed_where_model_and_batch_are(data) -> None:
    for text in TEXTS:
        task = load_task(text)
        found = task.data()
        model = task.model(found).to("meta")
        drawn = to_device(task.batch(found, torch.Generator().manual_seed(0), 4), "meta")
        assert task.loss(model, drawn).device.type == "meta"
