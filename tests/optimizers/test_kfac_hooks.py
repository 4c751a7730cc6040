"""Hooks leave no trace, copies do not hook twice, state resumes bit for bit, hard inputs stay finite."""

import copy
import gc
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steepest import KFAC, KFACPreconditioner
from steepest.preconditioners.kfac import ActivationKronecker

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called")


def network(seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(seed)
    parts = [nn.Embedding(7, 4), nn.Linear(4, 5), nn.Tanh(), nn.LayerNorm(5), nn.Flatten(), nn.Linear(15, 2)]
    return nn.Sequential(*parts).to(dtype)


def train(model, optimizer, steps: range, size: float = 1.0, kfac=None) -> None:
    for t in steps:
        generator = torch.Generator().manual_seed(t)
        x = torch.randint(0, 7, (6, 3), generator=generator)
        optimizer.zero_grad()
        (size * (model(x).float() - 0.3).square().sum(1).mean()).backward()
        if kfac is not None:
            kfac.precondition()
        optimizer.step()


def hooks(model: nn.Module) -> int:
    return sum(len(getattr(module, name)) for module in model.modules() for name in HOOKS)


def traces(model: nn.Module) -> dict:
    return {name: set(vars(module)) for name, module in model.named_modules()}


def through_file(value: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def same(left: nn.Module, right: nn.Module) -> bool:
    assert all(p.isfinite().all() for p in left.parameters())
    return all(torch.equal(a, b) for a, b in zip(left.parameters(), right.parameters(), strict=True))


def test_nothing_is_left_on_the_model():
    model, plain = network(), network()
    optimizer = KFAC(model, 0.01)
    assert hooks(model) > 0
    assert traces(model) == traces(plain)
    train(model, optimizer, range(3))
    assert list(model.state_dict()) == list(plain.state_dict())
    optimizer.remove_hooks()
    assert hooks(model) == 0
    assert traces(model) == traces(plain)
    optimizer.remove_hooks()
    pickle.dumps(model)


def test_hooks_go_with_the_optimizer():
    model = network()
    optimizer = KFAC(model, 0.01)
    train(model, optimizer, range(2))
    del optimizer
    gc.collect()
    assert hooks(model) == 0


def test_hooks_go_when_the_constructor_fails():
    model = network()
    with pytest.raises(ValueError, match=r"batch_dims"):
        KFAC(model, 0.01, params=[{"params": model.parameters(), "batch_dims": 1}])
    assert hooks(model) == 0


def test_the_context_manager_removes_hooks():
    model = network()
    with KFACPreconditioner(model):
        assert hooks(model) > 0
    assert hooks(model) == 0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
@pytest.mark.parametrize("before", [0, 3])
def test_a_copy_with_its_model_trains_alike_and_apart(copied, before):
    model = network()
    optimizer = KFAC(model, 0.01, precondition_frequency=2)
    train(model, optimizer, range(before))
    count = hooks(model)
    twin, other = copied((model, optimizer))
    assert hooks(model) == hooks(twin) == count
    at_copy = copy.deepcopy(model.state_dict())
    train(twin, other, range(before, before + 4))
    assert all(torch.equal(at_copy[name], value) for name, value in model.state_dict().items())
    train(model, optimizer, range(before, before + 4))
    assert same(model, twin)


def test_a_copied_model_is_not_watched():
    model = network()
    optimizer = KFAC(model, 0.01)
    twin = copy.deepcopy(model)
    twin(torch.zeros(2, 3, dtype=torch.int64)).sum().backward()
    assert all(layer.pending.inputs is None for layer in optimizer._watch.layers)


def test_a_copied_optimizer_brings_a_model_of_its_own():
    model = network()
    optimizer = KFAC(model, 0.01)
    count = hooks(model)
    other = copy.deepcopy(optimizer)
    assert hooks(model) == count
    train(other._watch.model, other, range(2))
    assert not same(model, other._watch.model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_resume_is_bitwise(dtype):
    options = {"precondition_frequency": 3, "statistics_frequency": 2, "kl_clip": 1e-2}
    model = network(dtype=dtype)
    optimizer = KFAC(model, 0.01, **options)
    train(model, optimizer, range(5))
    saved, weights = through_file(optimizer.state_dict()), copy.deepcopy(model.state_dict())
    train(model, optimizer, range(5, 12))
    twin = network(seed=1, dtype=dtype)
    twin.load_state_dict(weights)
    other = KFAC(twin, 0.01, **options)
    other.load_state_dict(saved)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert other.state[twin[1].weight]["input_covariance"].dtype == wide
    train(twin, other, range(5, 12))
    assert same(model, twin)


def test_the_filter_resumes_bitwise():
    def start(seed):
        model = network(seed)
        return (
            model,
            torch.optim.SGD(model.parameters(), 0.01),
            KFACPreconditioner(model, damping=0.3, precondition_frequency=3),
        )

    model, sgd, kfac = start(0)
    train(model, sgd, range(4), kfac=kfac)
    saved, weights = through_file(kfac.state_dict()), copy.deepcopy(model.state_dict())
    train(model, sgd, range(4, 9), kfac=kfac)
    twin, other_sgd, other = start(1)
    twin.load_state_dict(weights)
    other.load_state_dict(saved)
    train(twin, other_sgd, range(4, 9), kfac=other)
    assert same(model, twin)
    saved["state"]["9"] = saved["state"].pop("1")
    with pytest.raises(ValueError, match="layer '9'"):
        other.load_state_dict(saved)


def test_a_state_that_does_not_fit_is_refused_before_anything_changes():
    model = network()
    optimizer = KFAC(model, 0.01)
    train(model, optimizer, range(2))
    saved = optimizer.state_dict()
    before = copy.deepcopy(saved["state"])
    other = network()
    alone = KFAC(other, 0.5, statistics="input")
    train(other, alone, range(1))
    bad = copy.deepcopy(alone.state_dict())
    bad["param_groups"] = saved["param_groups"]
    with pytest.raises(ValueError, match="layer '0' holds"):
        optimizer.load_state_dict(bad)
    for key, own in optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, before[key][name]) for name, value in own.items())


def test_state_has_the_documented_size():
    model = nn.Linear(5, 3)
    optimizer = KFAC(model, 0.1)
    model(torch.ones(2, 5)).sum().backward()
    optimizer.step()
    state = optimizer.state[model.weight]
    bytes_ = sum(v.numel() * v.element_size() for v in state.values())
    assert bytes_ == 4 * (15 + 2 * 9 + 3 + 2 * 36 + 6 + 1 + 1) + 8
    assert list(optimizer.state[model.bias]) == ["momentum_buffer"]


def test_decay_and_rate_of_the_bias_are_its_own():
    model = nn.Linear(4, 3).double()
    start = copy.deepcopy(model.state_dict())
    groups = [{"params": [model.weight]}, {"params": [model.bias], "lr": 0.0, "weight_decay": 0.5}]
    optimizer = KFAC(model, 0.1, params=groups)
    model(torch.ones(2, 4).double()).square().sum().backward()
    optimizer.step()
    assert torch.equal(model.bias, start["bias"])
    assert not torch.equal(model.weight, start["weight"])
    assert optimizer.state[model.weight]["input_covariance"].shape == (5, 5)


def test_a_frozen_bias_is_no_input():
    model = nn.Linear(4, 3)
    model.bias.requires_grad_(False)
    optimizer = KFAC(model, 0.1)
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    assert optimizer.state[model.weight]["input_covariance"].shape == (4, 4)


def test_layers_added_while_training_are_hooked():
    model = network()
    optimizer = KFAC(model, 0.01)
    train(model, optimizer, range(2))
    model.append(nn.Linear(2, 2))
    optimizer.add_param_group({"params": model[-1].parameters(), "lr": 0.1})
    assert optimizer.param_groups[-1]["rule"] == "matrix"
    train(model, optimizer, range(2, 4))
    assert optimizer.state[model[-1].weight]["step"] == 2


def test_schedules_and_damping_are_read_at_every_step():
    model = network()
    optimizer = KFAC(model, 0.01)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    train(model, optimizer, range(1))
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.005
    twins = []
    for damping in (1.0, 100.0):
        twin, other = copy.deepcopy((model, optimizer))
        other.param_groups[0]["damping"] = damping
        train(twin, other, range(1, 2))
        twins.append(twin)
    assert not same(*twins)


BAD = [
    ({"damping": -1.0}, ValueError, r"damping must be in \[0, inf\), got -1.0"),
    ({"stat_decay": 1.0}, ValueError, r"stat_decay must be in \[0, 1\), got 1.0"),
    ({"kl_clip": 0.0}, ValueError, "kl_clip must be in"),
    ({"precondition_frequency": 0}, ValueError, "precondition_frequency must be an integer >= 1, got 0"),
    ({"statistics_frequency": 1.5}, TypeError, "statistics_frequency must be an integer >= 1, got 1.5"),
    ({"statistics": "output"}, ValueError, "statistics must be one of 'both', 'input', got 'output'"),
    ({"factored_damping": 1}, ValueError, "factored_damping must be one of True, False, got 1"),
    ({"loss_average": "mean"}, ValueError, "loss_average must be one of 'batch', 'batch"),
    ({"skip": ["5.head"]}, ValueError, "skip names '5.head', which is no module"),
    ({"skip": "5"}, TypeError, "skip must be a collection"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
@pytest.mark.parametrize("make", [KFAC, KFACPreconditioner])
def test_bad_values_are_named(make, options, error, message):
    model = network()
    with pytest.raises(error, match=message):
        make(model, **({"lr": 0.1} if make is KFAC else {}), **options)
    gc.collect()
    assert hooks(model) == 0


def test_unknown_arguments_are_refused_with_a_suggestion():
    unknown: Any = {"dampling": 1.0}
    with pytest.raises(TypeError, match="did you mean 'damping'"):
        KFAC(network(), 0.1, **unknown)
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got list"):
        KFAC([nn.Parameter(torch.ones(2))], 0.1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"kl_clip.*precondition\(lr=...\)"):
        KFACPreconditioner(network(), kl_clip=1e-3).precondition()
    part, x = ActivationKronecker(), torch.ones(1, 2, 2)
    with pytest.raises(TypeError, match="use KFAC"):
        part.prepare(x, part.init(x), {"step": 1})


@pytest.mark.parametrize("factored", [False, True])
@pytest.mark.parametrize("size", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_scale_is_finite_and_descends(dtype, size, factored):
    model = network(dtype=dtype)
    start = copy.deepcopy(model)
    optimizer = KFAC(model, 1e-3, factored_damping=factored, kl_clip=1e-3, precondition_frequency=2)
    train(model, optimizer, range(1), size)
    pairs = zip(model.parameters(), start.parameters(), strict=True)
    assert sum(((before - after).double() * after.grad.double()).sum() for after, before in pairs) > 0
    train(model, optimizer, range(1, 20), size)
    assert all(p.isfinite().all() for p in model.parameters())
    layers = [own for own in optimizer.state.values() if "exp_avg_sq" not in own]
    assert len(layers) == 5
    assert all(v.isfinite().all() for own in layers for v in own.values())


@pytest.mark.parametrize("damping", [0.0, 1e-3])
@pytest.mark.parametrize("factored", [False, True])
def test_zeros_then_rank_one_then_signal(damping, factored):
    model = nn.Linear(6, 4)
    optimizer = KFAC(model, 1e-3, damping=damping, factored_damping=factored, precondition_frequency=1)

    def step(x: Tensor, pull: Tensor) -> None:
        optimizer.zero_grad()
        (model(x) * pull).sum().backward()
        optimizer.step()
        assert all(v.isfinite().all() for own in optimizer.state.values() for v in own.values())
        assert all(p.isfinite().all() for p in model.parameters())

    before = model.weight.detach().clone()
    for _ in range(10):
        step(torch.zeros(1, 6), torch.zeros(1, 4))
    assert torch.equal(model.weight, before)
    for _ in range(10):
        step(torch.ones(1, 6), torch.ones(1, 4))
    torch.manual_seed(0)
    for _ in range(10):
        step(torch.randn(8, 6), torch.randn(8, 4))
    assert not torch.equal(model.weight, before)


def test_a_non_finite_batch_spoils_no_statistics():
    model = nn.Linear(3, 2)
    optimizer = KFAC(model, 1e-3, nonfinite="propagate")
    optimizer.param_groups[0]["lr"] = 0.0
    seen = []
    for x in (1.0, float("nan"), 2.0):
        optimizer.zero_grad()
        model(torch.full((4, 3), x)).square().sum().backward()
        if x != x:
            model.weight.grad = torch.zeros_like(model.weight)
            model.bias.grad = torch.zeros_like(model.bias)
        optimizer.step()
        seen.append(optimizer.state[model.weight]["input_covariance"].clone())
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])
    assert all(v.isfinite().all() for v in optimizer.state[model.weight].values())


def test_a_skipped_step_forgets_its_batch():
    model = nn.Linear(3, 2)
    optimizer = KFAC(model, 1e-3, nonfinite="raise")
    model(torch.full((4, 3), float("inf"))).square().sum().backward()
    with pytest.raises(FloatingPointError):
        optimizer.step()
    assert optimizer._watch.layers[0].pending.inputs is None


def test_several_processes_are_refused(monkeypatch):
    model = network()
    optimizer, filter_ = KFAC(model, 0.1), KFACPreconditioner(model)
    model(torch.zeros(2, 3, dtype=torch.int64)).sum().backward()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    before = copy.deepcopy(model)
    for move in (optimizer.step, filter_.precondition):
        with pytest.raises(RuntimeError, match="the default group has 4 processes"):
            move()
    assert same(model, before)


@pytest.mark.parametrize(("m", "n"), [(1, 6), (6, 1), (1, 1)])
def test_one_row_or_column(m, n):
    model = nn.Linear(n, m, bias=False)
    optimizer = KFAC(model, 0.01)
    for t in range(4):
        torch.manual_seed(t)
        optimizer.zero_grad()
        model(torch.randn(5, n)).square().mean().backward()
        optimizer.step()
    assert model.weight.isfinite().all()
