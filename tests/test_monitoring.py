"""Values a user can check by hand, on the steps asked for, and nothing on the others."""

import math

import pytest
import torch
from torch.nn import Parameter

import steepest
from steepest import Monitor
from toys import MAKERS, copies, equal, parameters, train


def watched(optimizer, **settings):
    seen = []
    Monitor(optimizer, lambda values, step: seen.append((step, values)), **settings)
    return seen


def test_values_of_a_group():
    weight, bias = Parameter(torch.full((4, 3), 2.0)), Parameter(torch.zeros(3))
    optimizer = torch.optim.SGD([{"params": [weight, bias], "name": "layer"}], lr=0.5)
    seen = watched(optimizer, every=1, prefix="")
    weight.grad, bias.grad = torch.ones(4, 3), torch.full((3,), 2.0)
    optimizer.step()
    ((step, values),) = seen
    assert step == 1
    expected = {
        "layer/lr": 0.5,
        "layer/gradient_norm": math.sqrt(12 + 12),
        "layer/weight_rms": math.sqrt(48 / 15),
        "layer/update_rms": 0.5 * math.sqrt(24 / 15),
        "layer/update_ratio": 0.5 * math.sqrt(0.5),
    }
    assert values == pytest.approx(expected)


def test_only_every_so_many_steps_and_until_removed():
    params = parameters()
    optimizer = steepest.AdamW(params)
    seen = []
    monitor = Monitor(optimizer, lambda values, step: seen.append(step), every=3)
    train(optimizer, params, range(8))
    assert seen == [1, 4, 7]
    monitor.remove()
    train(optimizer, params, range(8))
    assert seen == [1, 4, 7]


@pytest.mark.parametrize("name", MAKERS)
def test_watching_changes_nothing(name):
    results = []
    for watch in (False, True):
        params = parameters()
        optimizer = MAKERS[name](params)
        seen = watched(optimizer, every=2, spectra=True) if watch else []
        train(optimizer, params, range(4))
        results.append(copies(params))
        for _, values in seen:
            assert all(math.isfinite(value) for value in values.values())
            assert any(key.endswith("update_rms") for key in values)
    assert equal(*results)


def test_orthogonality_error_is_that_of_the_oracle():
    for orthogonalizer, low, high in (("svd", 0.0, 1e-9), ("newton_schulz", 0.05, 0.5)):
        generator = torch.Generator().manual_seed(0)
        weight = Parameter(torch.randn(12, 8, dtype=torch.float64, generator=generator))
        optimizer = steepest.Muon([weight], lr=0.1, weight_decay=0.3, orthogonalizer=orthogonalizer)
        seen = watched(optimizer, every=1, spectra=True)
        weight.grad = torch.randn(12, 8, dtype=torch.float64, generator=generator)
        optimizer.step()
        assert low <= seen[0][1]["optimizer/group0/orthogonality_error"] <= high


@pytest.mark.parametrize(
    "make",
    [
        lambda params: steepest.Scion(params, lr=0.1, orthogonalizer="svd", constrained=True),
        # Its first step is the sign, here sqrt(2) times an orthogonal matrix.
        lambda params: steepest.SPlus(params, lr=0.1, weight_decay=0.9),
    ],
    ids=["Scion", "SPlus"],
)
def test_every_decay_is_left_out_of_orthogonality(make):
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    weight = Parameter(torch.tensor([[0.3, 2.0], [0.1, 5.0]], dtype=torch.float64))
    optimizer = make([weight])
    seen = watched(optimizer, every=1, spectra=True)
    weight.grad = signs * torch.tensor([[1.0, 3.0], [0.5, 2.0]], dtype=torch.float64)
    optimizer.step()
    assert seen[0][1]["optimizer/group0/orthogonality_error"] < 1e-9


def test_condition_and_fallbacks_of_a_preconditioner():
    weight = Parameter(torch.zeros(2, 2, dtype=torch.float64))
    optimizer = steepest.Shampoo([weight], lr=0.1, betas=(0.0, 1.0))
    seen = watched(optimizer, every=1, spectra=True)
    weight.grad = torch.diag(torch.tensor([3.0, 1.0], dtype=torch.float64))
    optimizer.step()
    assert seen[0][1]["optimizer/group0/condition"] == pytest.approx(9)
    assert seen[0][1]["optimizer/group0/fallbacks"] == 0


def test_what_is_not_finite_is_told():
    weight = Parameter(torch.ones(3, 2))
    optimizer = steepest.SOAP([weight], nonfinite="propagate")
    seen = watched(optimizer, every=1, spectra=True)
    for value in (1.0, math.nan):
        weight.grad = torch.full((3, 2), value)
        optimizer.step()
    for name in ("update_rms", "orthogonality_error", "condition"):
        assert math.isfinite(seen[0][1][f"optimizer/group0/{name}"])
        assert math.isnan(seen[1][1][f"optimizer/group0/{name}"])


def test_skipped_and_missing_gradients():
    params = [Parameter(torch.ones(3)), Parameter(torch.ones(2))]
    optimizer = steepest.AdamW(params, nonfinite="skip")
    seen = watched(optimizer, every=1)
    params[0].grad = torch.full((3,), float("inf"))
    optimizer.step()
    assert seen[0][1]["optimizer/group0/update_rms"] == 0
    optimizer.zero_grad()
    optimizer.step()
    assert seen[1][1]["optimizer/group0/gradient_norm"] == 0


class Run:
    def __init__(self):
        self.logged = []

    def log(self, values, step):
        self.logged.append((values, step))


class Writer:
    def __init__(self):
        self.scalars = {}

    def add_scalar(self, name, value, step):
        self.scalars[name, step] = value


def test_sinks():
    run, writer = Run(), Writer()
    params = parameters()
    optimizer = steepest.AdamW(params, lr=0.25)
    Monitor(optimizer, run, every=1)
    Monitor(optimizer, writer, every=1)
    train(optimizer, params, range(2))
    assert [step for _, step in run.logged] == [1, 2]
    assert run.logged[0][0]["optimizer/group0/lr"] == 0.25
    assert writer.scalars["optimizer/group0/lr", 2] == 0.25


def test_what_is_refused():
    optimizer = steepest.AdamW(parameters())
    with pytest.raises(TypeError, match="sink must have log"):
        Monitor(optimizer, 3)
    with pytest.raises(ValueError, match="every must be an integer >= 1, got 0"):
        Monitor(optimizer, print, every=0)
    with pytest.raises(TypeError, match=r"optimizer must be a torch\.optim.Optimizer, got list"):
        Monitor([], print)  # pyright: ignore[reportArgumentType]
