"""The contract with PyTorch that every public optimizer keeps."""

import copy
import dataclasses
import itertools
import pickle
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from steepest import ANDI, EMA, Adam, AdamW, Frobenius, MuAdam, Muon, Steepest, StepLength, UnitLMO
from toys import (
    CURVED,
    MAKERS,
    WHOLE_NETWORK,
    accepts,
    close,
    copies,
    decay,
    equal,
    give_gradients,
    parameters,
    same,
    snapshot,
    train,
)

every = pytest.mark.parametrize("name", MAKERS)


@every
def test_the_descent_of_a_quadratic(name):
    """Twenty steps down a badly scaled quadratic from a distance the steps cannot overshoot."""
    params = parameters()
    with torch.no_grad():
        for p in params:
            p.mul_(100)
    optimizer = MAKERS[name](params)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = torch.stack([(p.square() / 200).sum() for p in params]).sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(20)]
    assert all(b < a for a, b in itertools.pairwise(losses))


@every
def test_closure_runs_once_with_gradients_and_changes_nothing_else(name):
    with_closure, without = parameters(), parameters()
    a, b = MAKERS[name](with_closure), MAKERS[name](without)
    for seed in range(3):
        calls = []

        def closure(seed=seed, calls=calls) -> float:
            assert torch.is_grad_enabled()
            give_gradients(with_closure, seed)
            calls.append(seed)
            return 2.5

        assert a.step(closure) == 2.5
        assert calls == [seed]
        give_gradients(without, seed)
        assert b.step() is None
    assert same(snapshot(a), snapshot(b))


@every
def test_maximize_is_descent_of_the_negated(name):
    up, down = parameters(), parameters()
    a, b = MAKERS[name](up, maximize=True), MAKERS[name](down)
    for seed in range(3):
        train(a, up, [seed])
        train(b, down, [seed], scale=-1.0)
    assert close(copies(up), copies(down), 1e-15)


@every
def test_gradients_are_read_only_and_missing_ones_leave_alone(name):
    params = parameters()
    optimizer = MAKERS[name](params, **decay(name, 0.1))
    before = copies(params)
    for seed in range(2):
        give_gradients(params, seed)
        params[0].grad = params[1].grad = None
        grads = copies([p.grad for p in params[2:] if p.grad is not None])
        optimizer.step()
        assert equal(grads, [p.grad for p in params[2:] if p.grad is not None])
    assert equal(copies(params[:2]), before[:2])
    assert not optimizer.state.get(params[0])
    assert all(not torch.equal(p, old) for p, old in zip(params[2:], before[2:], strict=True))


@every
def test_zero_lr_moves_nothing(name):
    params = parameters()
    optimizer = MAKERS[name](params, lr=0.0, **({"aux": {"lr": 0.0}} if accepts(name, "aux") else {}))
    before = copies(params)
    train(optimizer, params, range(3))
    assert equal(copies(params), before)


@every
def test_zero_gradients_are_finite(name):
    params = parameters()
    optimizer = MAKERS[name](params)
    train(optimizer, params, range(2), scale=0.0)
    shrunk = optimizer.defaults.get("weight_decay") or optimizer.defaults.get("constrained")
    assert shrunk or equal(copies(params), copies(parameters()))
    train(optimizer, params, range(2))
    assert all(p.isfinite().all() for p in params)


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_dtypes(name, dtype):
    """State is float32 or better under plain names; the weight keeps its dtype and follows float64's."""
    params, exact = parameters(dtype=dtype), [p.double().detach() for p in parameters(dtype=dtype)]
    exact = [Parameter(p) for p in exact]
    optimizer, reference = MAKERS[name](params), MAKERS[name](exact)
    for seed in range(3):
        give_gradients(params, seed)
        for p, q in zip(params, exact, strict=True):
            assert p.grad is not None
            q.grad = p.grad.double()
        optimizer.step()
        reference.step()
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for p in params:
        assert p.dtype == dtype
        for key, value in optimizer.state[p].items():
            assert key.isidentifier()
            if name not in CURVED:
                assert value.dtype == (torch.float32 if key == "step" else wide)
            elif value.is_floating_point():
                assert torch.finfo(value.dtype).eps <= torch.finfo(torch.float32).eps
    # Signs and iterations in bfloat16 differ in single entries; the rest is rounding of the weight.
    tolerance = max(8 * torch.finfo(dtype).eps, 0.02 if "Mu" in name or "spectral" in name else 0.0)
    assert all(p.isfinite().all() for p in params)
    assert name in CURVED or close([p.double() for p in copies(params)], copies(exact), tolerance)


SQUARES = ("exp_avg_sq", "sum", "grad_sum_sq")
"""Squares of 1e30 are infinite in float32."""

NAMES = {
    "ANDI": ["momentum_buffer"],
    "ANDI gradient start": ["momentum_buffer", "step"],
    "Muon": ["momentum_buffer"],
    "NormalizedSGD": ["momentum_buffer"],
    "SignSGD": ["momentum_buffer"],
    "Steepest": [],
    **{
        name: ["exp_avg", "exp_avg_sq", "step"]
        for name in ("Adam", "AdamW", "AdamSANIA", "MuAdam", "MuAdamSANIA")
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_state_has_stable_names_and_the_shape_of_the_parameter(name):
    params = parameters()
    optimizer = MAKERS[name](params)
    train(optimizer, params, [0])
    for p in params[:1] + params[3:4]:
        assert sorted(optimizer.state[p]) == NAMES[name]
        assert all(v.shape == (() if key == "step" else p.shape) for key, v in optimizer.state[p].items())


@every
def test_float32_at_extreme_scales(name):
    for scale in (1e-30, 1e30):
        params = parameters(dtype=torch.float32)
        optimizer = MAKERS[name](params)
        if name == "Steepest" and scale > 1:  # gradient descent moves by what it is given
            optimizer.param_groups[0]["lr"] = 1e-30
        train(optimizer, params, range(3), scale)
        train(optimizer, params, range(2))
        assert all(p.isfinite().all() for p in params)
        for state in optimizer.state.values():
            assert all(v.isfinite().all() for key, v in state.items() if key not in SQUARES)


def laid_out(params: list[Parameter], layout: str) -> list[Parameter]:
    if layout == "channels_last":
        return [
            Parameter(p.detach().to(memory_format=torch.channels_last)) if p.ndim == 4 else p for p in params
        ]
    return [
        Parameter(p.detach().flip(0).T.contiguous().T.flip(0).T.contiguous().T if p.ndim == 2 else p.detach())
        for p in params
    ]


@every
@pytest.mark.parametrize("layout", ["channels_last", "transposed"])
def test_memory_layout_changes_nothing(name, layout):
    plain, other = parameters(), laid_out(parameters(), layout)
    assert any(not p.is_contiguous() for p in other)
    a, b = MAKERS[name](plain), MAKERS[name](other)
    for seed in range(3):
        train(a, plain, [seed])
        give_gradients(other, seed)
        for i, p in enumerate(other):
            assert p.grad is not None
            p.grad = p.grad.contiguous() if i % 2 else torch.empty_like(p).copy_(p.grad)
        b.step()
    assert close(copies(other), copies(plain), 1e-13)
    assert [p.stride() for p in other] == [p.stride() for p in laid_out(parameters(), layout)]
    reloaded = MAKERS[name](other)
    reloaded.load_state_dict(b.state_dict())
    assert same(snapshot(reloaded), snapshot(b))


@every
def test_empty_tensors(name):
    params = parameters([(0, 5), (0,), (3, 2), (2, 0, 3)])
    optimizer = MAKERS[name](params)
    train(optimizer, params, range(2))
    assert not optimizer.state.get(params[0])
    assert params[2].isfinite().all()
    optimizer.load_state_dict(optimizer.state_dict())


@every
@pytest.mark.parametrize("stage", [0, 2])
@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_copies_are_independent_and_continue_alike(name, stage, way):
    params = parameters()
    optimizer = MAKERS[name](params)
    train(optimizer, params, range(stage))
    before = snapshot(optimizer)
    twin = copy.deepcopy(optimizer) if way == "deepcopy" else pickle.loads(pickle.dumps(optimizer))
    theirs = [p for group in twin.param_groups for p in group["params"]]
    train(twin, theirs, range(5, 7))
    assert same(snapshot(optimizer), before)
    ours = [p for group in optimizer.param_groups for p in group["params"]]
    train(optimizer, ours, range(5, 7))
    assert same(snapshot(twin), snapshot(optimizer))
    twin.add_param_group({"params": parameters([(2, 2)])})


@every
def test_parameters_and_hypers_are_read_at_every_step(name):
    """A parameter swapped in param_groups, as FSDP and accelerate do, is the one that moves."""
    old, new = parameters([(6, 5)]), parameters([(6, 5)])
    optimizer = MAKERS[name](old)
    optimizer.param_groups[0]["params"][0] = new[0]
    optimizer.param_groups[0]["lr"] = 0.5 * optimizer.param_groups[0]["lr"]
    alone = parameters([(6, 5)])
    expected = MAKERS[name](alone, lr=0.5 * MAKERS[name].keywords["lr"])
    train(optimizer, new, range(2))
    train(expected, alone, range(2))
    assert equal(copies(new), copies(alone))
    assert equal(copies(old), copies(parameters([(6, 5)])))


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in WHOLE_NETWORK])
def test_optimizers_of_one_parameter_each(name):
    """Nothing but whole-network steps ties parameters together."""
    together, apart = parameters(), parameters()
    train(MAKERS[name](together), together, range(3))
    alone = [MAKERS[name]([p]) for p in apart]
    for seed in range(3):
        give_gradients(apart, seed)
        for optimizer in alone:
            optimizer.step()
    assert close(copies(together), copies(apart), 1e-6 if name in CURVED else 1e-12)


def test_parameters_that_join_late_are_counted_apart():
    """Bias correction knows each parameter's own number of steps, also among stacked ones."""
    for make in (MuAdam, AdamW):
        a, b = parameters([(4, 3), (4, 3)])
        optimizer = make([a, b], lr=0.1)
        for seed in range(4):
            give_gradients([a, b], seed)
            if seed < 2:
                b.grad = None
            optimizer.step()
        assert [optimizer.state[p]["step"].item() for p in (a, b)] == [4, 2]
        alone = parameters([(4, 3), (4, 3)])[1]
        single = make([alone], lr=0.1)
        for seed in range(2, 4):
            give_gradients([a, alone], seed)
            single.step()
        assert close([b.detach()], [alone.detach()], 1e-13)


def test_counts_stay_exact_under_a_low_precision_default_dtype():
    [p] = parameters([(3,)], torch.float32)
    torch.set_default_dtype(torch.bfloat16)
    try:
        optimizer = AdamW([p], fused=False)
        train(optimizer, [p], [0])
    finally:
        torch.set_default_dtype(torch.float32)
    assert optimizer.state[p]["step"].dtype == torch.float32


# Steps that need one number of the whole network


@dataclasses.dataclass(frozen=True)
class Clipped(StepLength):
    """Factor min(1, sum <M, S> / 10), remembering what it saw."""

    seen: ClassVar[list[Any]] = []
    whole_network = True

    def __call__(self, direction, x, hypers) -> Tensor:
        return direction

    def factor(self, total: Tensor, hypers) -> Tensor:
        self.seen.append((total.item(), hypers["loss"]))
        return (total / 10).clamp(max=1.0)


@pytest.mark.parametrize("scale", [0.1, 100.0])
def test_whole_network_factor(scale):
    """Unit Frobenius steps of all groups share the factor min(1, sum |M|_F / 10); decay does not."""
    params, start = parameters(), copies(parameters())
    optimizer = Steepest(
        [{"params": params[:2]}, {"params": params[2:], "lr": 0.3, "weight_decay": 0.5}],
        lr=0.1,
        norm=Frobenius(),
        momentum=EMA(0.5),
        step=Clipped(),
    )
    Clipped.seen.clear()

    def closure() -> float:
        give_gradients(params, 0, scale)
        return 7.0

    optimizer.step(closure)
    momenta = [0.5 * p.grad for p in params if p.grad is not None]
    total = float(sum(m.norm() for m in momenta))
    factor = min(1.0, total / 10)
    assert {loss for _, loss in Clipped.seen} == {7.0}
    assert all(seen == pytest.approx(total, rel=1e-12) for seen, _ in Clipped.seen)
    assert (factor == 1.0) == (scale == 100.0)
    for i, (p, w, m) in enumerate(zip(params, start, momenta, strict=True)):
        lr, decay = (0.1, 0.0) if i < 2 else (0.3, 0.5)
        expected = w - lr * (decay * w + factor * m / m.norm())
        torch.testing.assert_close(p.detach(), expected, rtol=1e-12, atol=1e-14)


def test_a_whole_network_factor_of_one_is_the_plain_step():
    plain, counted = parameters(), parameters()
    a = Steepest(plain, 0.1, step=UnitLMO(), weight_decay=0.1)
    b = Steepest(counted, 0.1, step=Clipped(), weight_decay=0.1)
    for seed in range(3):
        train(a, plain, [seed], 100.0)
        train(b, counted, [seed], 100.0)
    assert close(copies(counted), copies(plain), 1e-14)


# Arguments


@pytest.mark.parametrize(
    ("make", "kwargs", "error", "message"),
    [
        (AdamW, {"lr": -0.1}, ValueError, r"lr must be in \[0, inf\), got -0\.1"),
        (AdamW, {"lr": float("nan")}, ValueError, r"lr must be in \[0, inf\), got nan"),
        (AdamW, {"lr": "1e-3"}, TypeError, r"lr must be a number in \[0, inf\), got '1e-3'"),
        (AdamW, {"lr": True}, TypeError, r"lr must be a number in \[0, inf\), got True"),
        (AdamW, {"lr": torch.ones(2)}, ValueError, r"lr must be .* tensor of shape \(2,\)"),
        (AdamW, {"betas": (0.9, 1.0)}, ValueError, r"betas\[1\] must be in \[0, 1\), got 1\.0"),
        (AdamW, {"betas": 0.9}, ValueError, r"betas must be two numbers in \[0, 1\), got 0\.9"),
        (AdamW, {"eps": -1e-8}, ValueError, r"eps must be in \[0, inf\), got -1e-08"),
        (Adam, {"weight_decay": None}, TypeError, r"weight_decay must be a number .* got None"),
        (AdamW, {"maximize": 1}, ValueError, "maximize must be one of True, False, got 1"),
        (AdamW, {"fused": "yes"}, ValueError, "fused must be one of None, True, False, got 'yes'"),
        (AdamW, {"nonfinite": "warn"}, ValueError, "nonfinite must be one of None, 'raise'.* got 'warn'"),
        (
            AdamW,
            {"beta": (0.9, 0.99)},
            TypeError,
            "unknown argument 'beta'; did you mean 'betas'",
        ),
        (ANDI, {"learning_rate": 1}, TypeError, "unknown argument 'learning_rate'; did you mean 'lr'"),
        (ANDI, {"momentum": 1.0}, ValueError, r"momentum must be in \[0, 1\), got 1\.0"),
        (ANDI, {"nesterov": "no"}, ValueError, "nesterov must be one of True, False, got 'no'"),
        (ANDI, {"threshold": 1.5}, TypeError, r"threshold must be an integer >= 0, got 1\.5"),
        (ANDI, {"threshold": -1}, ValueError, "threshold must be an integer >= 0, got -1"),
        (
            ANDI,
            {"mixing": "up"},
            ValueError,
            "mixing must be None, 'direct' or 'lateral', got 'up'",
        ),
        (ANDI, {"shift": "x"}, TypeError, "shift must be an integer, got 'x'"),
        (ANDI, {"momentum_init": 0}, ValueError, "momentum_init must be one of 'zero', 'gradient', got 0"),
        (Muon, {"scale": "big"}, ValueError, "scale must be one of None, 'original'.* got 'big'"),
        (Muon, {"orthogonalizer": "qr"}, ValueError, "orthogonalizer must be one of .* got 'qr'"),
        (Muon, {"steps": 0}, ValueError, "steps must be an integer >= 1, got 0"),
        (Muon, {"aux": {"lrs": 1}}, TypeError, "aux got an unknown argument 'lrs'; did you mean 'lr'"),
        (Muon, {"aux": {"lr": -1}}, ValueError, r"lr must be in \[0, inf\), got -1"),
        (Muon, {"aux": 0.1}, TypeError, r"aux must be a dict of lr, .* or None, got 0\.1"),
        (Steepest, {"lr": 1.0, "norm": "max"}, TypeError, r"norm must be a Norm such as .* got 'max'"),
        (Steepest, {"lr": 1.0, "momentum": EMA(2.0)}, ValueError, r"momentum must be in \[0, 1\), got 2\.0"),
    ],
)
def test_bad_arguments(make, kwargs, error, message):
    """Each message names the argument, the value and what is allowed."""
    with pytest.raises(error, match=message):
        make(parameters([(3, 3)]), **kwargs)
