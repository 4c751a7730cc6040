"""The invariance task: a twin is the same function, and only invariant methods keep it so."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from steepest.race.contenders import parse_contender
from steepest.race.records import RaceError
from steepest.race.spec import make_spec
from steepest.race.task_text import load_task
from steepest.race.tasks.invariance import INVARIANT
from steepest.race.training import train

TEXTS = (
    "invariance",
    "invariance(hidden=10)",
    "invariance(affine=True)",
    "invariance(hidden=5, affine=True)",
)


@pytest.fixture(autouse=True)
def mushrooms(tmp_path, monkeypatch):
    """Properties of two to six values each, one-hot, as in the real file: 112 features in all."""
    rng = np.random.default_rng(0)
    sizes = [2, 6] * 14
    start = np.cumsum([0, *sizes[:-1]])
    values = np.stack([rng.integers(0, size, 400) for size in sizes], 1)
    label = 1 + (values[:, 1] + values[:, 3] + values[:, 0] > 5)
    rows = [
        f"{y} " + " ".join(f"{1 + offset + v}:1" for offset, v in zip(start, row, strict=True))
        for y, row in zip(label, values, strict=True)
    ]
    (tmp_path / "mushrooms").write_text("\n".join(rows) + "\n")
    monkeypatch.setenv("STEEPEST_DATA", str(tmp_path))
    monkeypatch.setenv("STEEPEST_CACHE", str(tmp_path / "cache"))


def deviation(text: str, optimizer: str, lr: float, steps: int = 20) -> float:
    task, contender = load_task(text), parse_contender(optimizer)
    spec = make_spec(text, task, contender, lr=lr, aux_lr=1e-3, seed=3, phase="final", steps=steps)
    record = train(spec)
    assert record.status == "ok", record.error
    assert record.train_curve[-1][1] < record.train_curve[0][1]
    assert len(record.twin_curve) == len(record.train_curve)
    return record.metrics["deviation"]


@pytest.mark.parametrize("text", TEXTS)
def test_a_twin_is_the_same_function_in_other_coordinates(text) -> None:
    task = load_task(text)
    data = task.data()
    torch.manual_seed(0)
    model = task.model(data)
    assert task.twin is not None
    other_data, other = task.twin(data, model)
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    batches = [task.batch(d, g, 64) for d, g in zip((data, other_data), generators, strict=True)]
    assert not torch.allclose(batches[0][0], batches[1][0])
    outputs = [m(b[0]) for m, b in zip((model, other), batches, strict=True)]
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-12)
    assert task.evaluate(other, other_data)["val_loss"] == pytest.approx(
        task.evaluate(model, data)["val_loss"], rel=1e-10
    )
    assert all(p.dtype == torch.float64 and p.ndim == 2 for p in other.parameters())


@pytest.mark.parametrize("text", TEXTS[:2])
@pytest.mark.parametrize("optimizer", ["AdamSANIA(eps=0)", "MuAdamSANIA(eps=0)"])
def test_sania_is_scale_invariant(text, optimizer) -> None:
    assert deviation(text, optimizer, 1e-5) < 1e-10


@pytest.mark.parametrize("text", TEXTS[2:])
def test_kfac_is_affine_invariant(text) -> None:
    assert deviation(text, "KFAC(damping=0, kl_clip=None)", 1e-3) < 1e-8


@pytest.mark.parametrize(("optimizer", "lr"), [("AdamW", 1e-2), ("Muon", 1e-2), ("SGD", 0.1)])
@pytest.mark.parametrize("text", TEXTS[1:3])
def test_others_are_not(text, optimizer, lr) -> None:
    assert deviation(text, optimizer, lr) > 100 * INVARIANT


def test_sania_is_not_affine_invariant() -> None:
    assert deviation("invariance(affine=True)", "AdamSANIA(eps=0)", 1e-4) > 100 * INVARIANT


def test_columns_of_the_affine_variant_are_independent() -> None:
    every, chosen = load_task(TEXTS[0]).data().features, load_task(TEXTS[2]).data().features
    rank = torch.linalg.matrix_rank(every).item()
    assert every.shape[1] == 112
    assert chosen.shape[1] == rank == 112 - 27  # all but one of the 28 sums of properties repeat the first
    assert torch.linalg.matrix_rank(chosen) == rank


def test_variants_have_names_and_claims_of_their_own() -> None:
    names = [load_task(text).name for text in (*TEXTS, "invariance(k=1)")]
    assert names == [
        "invariance", "invariance-hidden10", "invariance-affine", "invariance-hidden5-affine", "invariance-k1"
    ]  # fmt: skip
    for text in TEXTS:
        for claim in load_task(text).claims:
            assert claim.metric == "deviation"
            assert parse_contender(claim.left).name == claim.left


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("hidden=-1", "hidden must be a whole number from 0 to 1000, got -1"),
        ("k=0", r"k must be in \(0, 6\], got 0"),
        ("affine=1", "affine must be True or False, got 1"),
        ("hiden=3", "did you mean 'hidden'"),
    ],
)
def test_options_out_of_range(options, message) -> None:
    with pytest.raises(RaceError, match=message):
        load_task(f"invariance({options})")
