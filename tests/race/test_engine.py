from __future__ import annotations

import math
from collections import namedtuple
from dataclasses import replace

import pytest
import race_toys
import torch
from torch import nn

from steepest.race.contenders import parse_contender
from steepest.race.engine import Engine, part_of_batch, to_device
from steepest.race.hopeless import why_hopeless
from steepest.race.records import RaceError, RunRecord
from steepest.race.schedules import describe_schedule, lr_factor
from steepest.race.spec import RunSpec, make_spec
from steepest.race.task_text import load_task
from steepest.race.tasks import chars
from steepest.race.training import train


def run(optimizer: str = "SGD", task: str = "race_toys:task", **changes) -> RunRecord:
    return train(spec(optimizer, task, **changes))


def spec(optimizer: str = "SGD", task: str = "race_toys:task", **changes) -> RunSpec:
    contender = parse_contender(optimizer)
    settings = {"lr": 0.05, "aux_lr": 0.01, "seed": 1, "phase": "final", "steps": 6, **changes}
    if not contender.is_hybrid():
        settings["aux_lr"] = None
    return make_spec(task, load_task(task), contender, **settings)


def losses(record: RunRecord) -> list[float]:
    assert record.status == "ok", record.error
    return [loss for _, loss in record.train_curve]


def test_adamw_in_a_race_is_adamw_in_a_plain_loop() -> None:
    """The race adds nothing: a loop as anyone would write it gives the same numbers, bit for bit."""
    steps, lr, seed = 25, 3e-3, 7
    text = chars.data()
    torch.manual_seed(seed)
    model = chars.model(text)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    batches = torch.Generator().manual_seed(seed)
    expected = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / round(0.05 * steps)) * (1 - step / steps)
        start = torch.randint(len(text.train) - chars.CONTEXT, (12, 1), generator=batches)
        windows = text.train[start + torch.arange(chars.CONTEXT + 1)]
        logits = model(windows[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        model.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    model.eval()
    with torch.no_grad():
        val_loss = chars.evaluate(model, text)["val_loss"]
    record = run("AdamW", "chars", lr=lr, seed=seed, steps=steps)
    assert losses(record) == expected
    assert record.final_loss == val_loss


def test_a_run_leaves_no_trace_in_the_next() -> None:
    alone = run("SGD")
    run("AdamW", engine=Engine(clip=0.1, accumulate=2, autocast="bfloat16"))
    assert losses(run("SGD")) == losses(alone)


@pytest.mark.parametrize("parts", [2, 8])
def test_accumulation_is_the_same_run_up_to_rounding(parts: int) -> None:
    whole, parted = run("AdamW"), run("AdamW", engine=Engine(accumulate=parts))
    assert losses(parted) == pytest.approx(losses(whole), rel=1e-5)
    assert parted.key != whole.key
    assert parted.engine["accumulate"] == parts


def test_a_batch_that_cannot_be_cut_is_told() -> None:
    record = run(engine=Engine(accumulate=3))
    assert record.error == "RaceError: a batch of 8 cannot be cut into 3 equal parts (step 1)"
    with pytest.raises(RaceError, match=r"one has the shape \(3, 4\)"):
        part_of_batch(torch.zeros(3, 4), 0, 2, 4)


def test_batches_of_any_nesting_are_cut_and_moved() -> None:
    pair = namedtuple("pair", "x y")
    batch = {"a": pair(torch.arange(4), [torch.arange(8).view(4, 2), torch.tensor(5)]), "b": "text"}
    second = part_of_batch(batch, 1, 2, 4)
    assert second["a"].x.tolist() == [2, 3]
    assert second["a"].y[0].tolist() == [[4, 5], [6, 7]]
    assert second["a"].y[1].item() == 5
    assert second["b"] == "text"
    moved = to_device(batch, "meta")
    assert type(moved["a"]) is pair
    assert moved["a"].y[0].device.type == "meta"


def test_clipping_scales_long_gradients_to_the_norm_given() -> None:
    norm = 1e-3
    free, clipped = run(steps=1), run(steps=1, engine=Engine(clip=norm))
    assert losses(free) == losses(clipped)
    # One step of SGD without momentum so far moves by lr times the gradient: at most lr times the norm.
    assert abs(clipped.val_curve[1][1] - clipped.val_curve[0][1]) < 0.05 * abs(
        free.val_curve[1][1] - free.val_curve[0][1]
    )
    assert losses(run(engine=Engine(clip=1e6))) == losses(run())


def test_bfloat16_changes_passes_and_not_the_weights() -> None:
    seen = set()

    def loss(network, index):
        x, y = race_toys.data()
        out = network(x[index])
        seen.add((out.dtype, next(network.parameters()).dtype))
        return (out - y[index]).square().mean()

    task = replace(race_toys.task, loss=loss)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(race_toys, "task", task)
        low = run("AdamW", engine=Engine(autocast="bfloat16"))
    assert seen == {(torch.bfloat16, torch.float32)}
    full = run("AdamW")
    assert losses(low) != losses(full)
    assert losses(low) == pytest.approx(losses(full), rel=0.05)


def test_a_compiled_model_trains_as_an_eager_one(monkeypatch) -> None:
    compiled = []

    def compile_without_compiler(self, **_) -> None:
        compiled.append(self)
        self._compiled_call_impl = torch.compile(self._call_impl, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", compile_without_compiler)
    record = run("AdamW", engine=Engine(compile=True))
    torch._dynamo.reset()
    assert len(compiled) == 1
    assert losses(record) == losses(run("AdamW"))


def test_schedules_and_warm_up_are_the_tasks_unless_the_engine_names_others() -> None:
    cosine = replace(race_toys.task, schedule="cosine", warmup=0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(race_toys, "task", cosine)
        own = spec()
        other = spec(engine=Engine(schedule="constant", warmup=0.0))
    assert (own.engine.schedule, own.engine.warmup) == ("cosine", 0.1)
    assert (other.engine.schedule, other.engine.warmup) == ("constant", 0.0)
    assert own.key != other.key
    assert RunSpec.from_dict(own.to_dict()) == own


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("linear", 0.0, [1.0, 0.75, 0.5, 0.25]),
        ("linear", 0.5, [0.5, 0.75, 0.5, 0.25]),
        ("constant", 0.0, [1.0, 1.0, 1.0, 1.0]),
        ("constant", 0.5, [0.5, 1.0, 1.0, 1.0]),
        ("cosine", 0.0, [(1 + math.cos(math.pi * t / 4)) / 2 for t in range(4)]),
    ],
)
def test_the_courses_of_the_learning_rate(schedule: str, warmup: float, expected: list[float]) -> None:
    assert [lr_factor(t, 4, schedule, warmup) for t in range(4)] == pytest.approx(expected)


def test_schedules_in_words() -> None:
    assert (
        describe_schedule("linear", 0.05) == "linear warm-up over 5% of the steps, then linear decay to zero"
    )
    assert describe_schedule("constant", 0.0) == "constant"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "gpu"}, "device must be one that torch knows, like cpu, cuda or cuda:1, got 'gpu'"),
        ({"autocast": "bfloat61"}, "autocast must be bfloat16 or nothing, got 'bfloat61'; did you mean"),
        ({"accumulate": 0}, "accumulate must be at least 1, got 0"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"clip": 0.0}, "clip must be a positive finite norm, got 0.0"),
        ({"clip": math.nan}, "clip must be a positive finite norm"),
        (
            {"schedule": "liner"},
            "schedule must be one of linear, cosine, constant, got 'liner'; did you mean",
        ),
        ({"warmup": -0.1}, "warmup must be a part of the steps"),
    ],
)
def test_an_engine_refuses_what_it_cannot_do(changes: dict, message: str) -> None:
    with pytest.raises(RaceError, match=message):
        Engine(**changes)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator")
def test_a_device_that_is_not_here_fails_the_run_in_words() -> None:
    record = run(engine=Engine(device="cuda"))
    assert record.error is not None
    assert "device 'cuda' is not available here; accelerators found: none" in record.error
    assert record.peak_memory_bytes is None


def scaled(xy, model):
    """The inputs in other units, and a first layer that computes the same of them."""
    (x, y), scale = xy, torch.tensor([1.0, 10.0, 0.1, 3.0])
    other = race_toys.model(xy)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other[0].weight /= scale  # pyright: ignore
    return (x * scale, y), other


def xy_loss(network, drawn):
    return (network(drawn[0]) - drawn[1]).square().mean()


def xy_batch(xy, generator, size):
    index = torch.randint(48, (size,), generator=generator)
    return xy[0][index], xy[1][index]


def with_twin(twin) -> RunRecord:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(race_toys, "task", replace(race_toys.task, batch=xy_batch, loss=xy_loss, twin=twin))
        return run("SGD")


def test_a_twin_is_trained_beside_the_run_and_their_distance_is_a_metric() -> None:
    record = with_twin(scaled)
    own, other = losses(record), [loss for _, loss in record.twin_curve]
    assert own[0] == pytest.approx(other[0], rel=1e-6)
    gaps = [abs(a - b) / own[0] for a, b in zip(own, other, strict=True)]
    assert record.metrics["deviation"] == max(gaps) > 1e-3  # SGD depends on the units
    alone = with_twin(None)
    assert losses(alone) == own
    assert alone.twin_curve == ()
    assert "deviation" not in alone.metrics


def test_the_same_problem_as_its_own_twin_does_not_deviate_even_with_dropout() -> None:
    def same(xy, model):
        other = dropping(xy)
        other.load_state_dict(model.state_dict())
        return xy, other

    def dropping(xy):
        return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Tanh(), nn.Linear(8, 1))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(race_toys, "model", dropping)
        patch.setattr(
            race_toys,
            "task",
            replace(race_toys.task, model=dropping, batch=xy_batch, loss=xy_loss, twin=same),
        )
        assert run("AdamW").metrics["deviation"] == 0.0


def test_a_twin_that_diverges_is_infinitely_far() -> None:
    def exploding(xy, model):
        x, y = xy
        return (x, y * 1e30), race_toys.model(xy)

    assert with_twin(exploding).metrics["deviation"] == math.inf


BEFORE = [(0, 2.0)]


@pytest.mark.parametrize(
    ("later", "stops"),
    [
        ([(5, 3.0), (6, 2.5), (10, 2.0)], True),  # never better than before from a quarter to the half
        ([(4, 1.0), (6, 2.5), (10, 2.5)], True),  # what was before a quarter does not count
        ([(5, 3.0), (6, 1.9), (10, 9.0)], False),  # once better: it may come back
        ([(5, 3.0), (6, 2.5), (9, 9.0)], False),  # not half way yet
        ([(5, math.nan), (10, math.inf)], True),
        ([(20, 9.0)], False),  # at the end there is nothing left to save
        ([], False),
    ],
)
def test_the_rule_of_hopeless_runs(later: list, stops: bool) -> None:
    assert (why_hopeless(BEFORE + later, 20) is not None) == stops
    assert why_hopeless([(0, math.inf), *later], 20) is None


def test_a_hopeless_run_of_a_search_is_stopped_and_loses_but_a_final_run_is_not() -> None:
    def climbing(network, index):
        return -race_toys.loss(network, index).clamp(max=1e3)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(race_toys, "task", replace(race_toys.task, loss=climbing))
        stopped = run(steps=16, phase="sweep", stops_if_hopeless=True)
        whole = run(steps=16)
    assert stopped.status == "stopped"
    assert stopped.final_loss == math.inf
    assert stopped.error is not None
    assert stopped.error.startswith("at step 8, no validation loss since step 4 was below")
    assert len(stopped.train_curve) == 8
    assert whole.status == "ok"
    assert stopped.key != whole.key
    assert whole.train_curve[:8] == stopped.train_curve


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@needs_cuda
@pytest.mark.parametrize("task", ["digits", "chars"])
def test_a_gpu_gives_the_losses_of_a_cpu_up_to_rounding(task: str) -> None:
    here = run("AdamW", task, steps=10, lr=1e-3)
    there = run("AdamW", task, steps=10, lr=1e-3, engine=Engine(device="cuda"))
    assert losses(there) == pytest.approx(losses(here), rel=1e-3)
    assert there.final_loss == pytest.approx(here.final_loss, rel=1e-3)
    assert there.peak_memory_bytes is not None
    assert there.peak_memory_bytes >= there.state_bytes + 8 * there.param_count  # weights and gradients too
    assert there.hardware["gpu"]
    assert there.key != here.key


@needs_cuda
def test_bfloat16_and_compilation_on_a_gpu_train_the_same_model() -> None:
    plain = run("AdamW", "chars", steps=10, lr=1e-3, engine=Engine(device="cuda"))
    low = run("AdamW", "chars", steps=10, lr=1e-3, engine=Engine(device="cuda", autocast="bfloat16"))
    both = run(
        "AdamW", "chars", steps=10, lr=1e-3, engine=Engine(device="cuda", autocast="bfloat16", compile=True)
    )
    assert losses(low) == pytest.approx(losses(plain), rel=2e-2)
    assert losses(both) == pytest.approx(losses(plain), rel=2e-2)
    assert losses(low) != losses(plain)
