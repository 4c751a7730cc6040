from __future__ import annotations

import math
from dataclasses import replace

import pytest
import race_toys

from steepest.race.contenders import parse_contender
from steepest.race.records import RunRecord
from steepest.race.schedules import lr_factor
from steepest.race.spec import RunSpec, make_spec
from steepest.race.task_text import load_task
from steepest.race.training import train


def spec(optimizer: str = "SGD", task: str = "race_toys:task", **changes) -> RunSpec:
    contender = parse_contender(optimizer)
    settings = {"lr": 0.01, "aux_lr": 0.01, "seed": 1, "phase": "final", "steps": 6, **changes}
    if not contender.is_hybrid():
        settings["aux_lr"] = None
    return make_spec(task, load_task(task), contender, **settings)


def outcome(record: RunRecord) -> tuple:
    return record.status, record.final_loss, record.train_curve, record.val_curve, dict(record.metrics)


@pytest.mark.parametrize("name", ["AdamW", "Muon", "ANDI", "MuAdam", "MuAdamSANIA", "SGD"])
@pytest.mark.parametrize("task", ["digits", "chars"])
def test_the_default_race_runs_and_repeats_bit_for_bit(task: str, name: str) -> None:
    first, second = (train(spec(name, task, steps=3)) for _ in range(2))
    assert first.status == "ok", first.error
    assert outcome(first) == outcome(second)
    assert math.isfinite(first.final_loss)
    assert [step for step, _ in first.val_curve] == [0, 1, 2, 3]
    assert first.final_loss == first.val_curve[-1][1] == first.metrics["val_loss"]
    assert 0 <= first.metrics["val_accuracy"] <= 1


def test_a_seed_is_an_initialisation_and_batches_for_every_optimizer() -> None:
    runs = [train(spec(name, seed=seed)) for seed in (1, 2) for name in ("AdamW", "Muon", "ANDI")]
    starts = [(run.val_curve[0], run.train_curve[0]) for run in runs]
    assert starts[0] == starts[1] == starts[2]
    assert starts[3] == starts[4] == starts[5]
    assert starts[0] != starts[3]


def test_a_record_tells_what_it_took() -> None:
    run = train(spec("AdamW", steps=5))
    weights = 4 * 8 + 8 + 8 + 1
    assert run.param_count == weights
    assert run.state_bytes == 2 * 4 * weights + 4 * 4  # two moments, and a float32 step of each tensor
    assert run.step_ms is not None
    assert run.fwd_bwd_ms is not None
    assert 0 < run.step_ms / 1e3 < run.seconds
    assert len(run.train_curve) == 5
    assert run.versions["torch"]
    assert run.hardware["threads"] >= 1
    assert run.settings["schedule"]
    assert RunRecord.from_json(run.to_json()) == run


def test_divergence_is_recorded_and_loses() -> None:
    run = train(spec("SGD", lr=1e30))
    assert run.status == "diverged"
    assert run.final_loss == math.inf
    assert run.metrics == {}


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("race_toys:RaisesInInit", "RuntimeError: no such thing (before the first step)"),
        ("race_toys:RaisesInStep", "ZeroDivisionError: third step (step 3)"),
    ],
)
def test_what_a_class_raises_is_one_line_of_its_record(name: str, error: str, capsys) -> None:
    run = train(spec(name))
    assert (run.status, run.error, run.final_loss) == ("failed", error, math.inf)
    assert "Traceback" in capsys.readouterr().err  # the worker's log has it whole


def test_a_gradient_that_is_not_finite_is_divergence_even_if_the_optimizer_raises(monkeypatch) -> None:
    def overflowing(network, index):
        loss = race_toys.loss(network, index)
        return loss.detach() + (loss * 0).sqrt().nan_to_num()

    assert train(spec("race_toys:RaisesAtOnce")).status == "failed"
    monkeypatch.setattr(race_toys, "task", replace(race_toys.task, loss=overflowing))
    run = train(spec("race_toys:RaisesAtOnce"))
    assert (run.status, run.error) == (
        "diverged",
        "gradient not finite at step 1 (FloatingPointError: refused)",
    )


def test_a_task_that_raises_or_forgets_its_loss_is_told_in_the_record(monkeypatch) -> None:
    def broken(network, drawn):
        raise RuntimeError("no loss today")

    monkeypatch.setattr(race_toys, "task", replace(race_toys.task, loss=broken))
    assert train(spec()).error == "RuntimeError: no loss today (step 1)"
    monkeypatch.setattr(
        race_toys, "task", replace(race_toys.task, evaluate=lambda network, xy: {"loss": 1.0})
    )
    assert (
        train(spec()).error == "ValueError: evaluate must return 'val_loss', got loss (before the first step)"
    )


def test_long_curves_are_averaged_into_at_most_a_hundred_points() -> None:
    run = train(spec("SGD", steps=250))
    assert len(run.train_curve) == 84
    assert run.train_curve[-1][0] == 250


def test_schedule_rises_then_falls_to_zero() -> None:
    factors = [lr_factor(t, 100) for t in range(100)]
    assert factors[0] == pytest.approx(0.2)
    assert max(factors) == factors[4] == pytest.approx(0.96)
    assert factors[5:] == sorted(factors[5:], reverse=True)
    assert factors[99] == pytest.approx(0.01)


def test_keys_tell_runs_apart_by_what_determines_them() -> None:
    base = spec("Muon")
    others = [
        spec("Muon", lr=0.02),
        spec("Muon", aux_lr=0.02),
        spec("Muon", seed=2),
        spec("Muon", steps=7),
        spec("Muon(nesterov=False)"),
        spec("MuAdam"),
        spec("Muon", task="digits"),
    ]
    assert len({s.key for s in (base, *others)}) == 8
    assert spec("Muon", phase="sweep").key == base.key == spec("steepest:Muon").key
