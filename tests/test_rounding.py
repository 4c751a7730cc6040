"""Momentum of few bits, and weights that take steps smaller than their last bit."""

import copy
import io

import pytest
import torch
from torch.nn import Parameter

import steepest
from steepest.rounding import random_bits, store_stochastically_
from toys import MAKERS, close, copies, equal, give_gradients, parameters, train

TINY = 1e-4  # a bfloat16 of size 1 moves by 0.0039 or 0.0078


def constant_descent(rounding, dtype=torch.bfloat16, steps=1000, shape=(64, 64)):
    """Return a weight of ones after steps of exactly TINY each."""
    param = Parameter(torch.ones(shape, dtype=dtype))
    optimizer = steepest.SignSGD([param], lr=TINY, momentum=0.0, rounding=rounding)
    for _ in range(steps):
        param.grad = torch.ones_like(param)
        optimizer.step()
    return param.detach().float(), optimizer.state[param]


def test_a_thousand_tiny_steps_are_lost_by_rounding_to_nearest():
    weight, state = constant_descent("nearest")
    assert bool((weight == 1).all())
    assert "compensation" not in state


def test_a_thousand_tiny_steps_arrive_on_average_with_stochastic_rounding():
    """Each entry walks in steps of up to 2^-7; the mean of 4096 is within five standard errors."""
    weight, state = constant_descent("stochastic")
    spread = weight.std().item()
    assert abs(weight.mean().item() - (1 - 1000 * TINY)) < 5 * spread / 64
    assert 1e-3 < spread < 0.05
    assert state["step"].item() == 1000


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_thousand_tiny_steps_arrive_with_compensation(dtype):
    weight, state = constant_descent("kahan", dtype)
    exact = 1 - 1000 * TINY
    assert close([weight + state["compensation"].float()], [torch.full_like(weight, exact)], 1e-3)
    assert close([weight], [torch.full_like(weight, exact)], torch.finfo(dtype).eps)


def test_stochastic_rounding_is_right_on_average_and_leaves_what_is_exact():
    value = torch.tensor([1.0, -2.5, 1 + 2**-9, -1 - 2**-9, 3e38, 1e-40, 0.0, float("inf"), float("-inf")])
    total = torch.zeros_like(value[:6], dtype=torch.float64)
    for step in range(4000):
        target = torch.empty_like(value, dtype=torch.bfloat16)
        store_stochastically_(target, value, torch.tensor(float(step)))
        total += target[:6].double() / 4000
        assert equal([target[[0, 1, 6, 7, 8]].float()], [value[[0, 1, 6, 7, 8]]])
    assert torch.allclose(total, value[:6].double(), rtol=3e-4, atol=1e-41)
    target = torch.empty(1, dtype=torch.bfloat16)
    store_stochastically_(target, torch.tensor([float("nan")]), torch.tensor(1.0))
    assert bool(target.isnan().all())


def test_random_bits_are_even_and_differ_by_entry_and_step():
    bits = torch.stack([random_bits(torch.empty(1000), torch.tensor(float(t))) for t in range(20)])
    ones = torch.stack([(bits >> i) & 1 for i in range(32)]).double().mean((1, 2))
    assert bool(((ones - 0.5).abs() < 5 * 0.5 / 20000**0.5).all())
    assert bits.unique().numel() > 19_900
    uniform = (bits & 0xFFFF).double()
    together = torch.corrcoef(uniform)
    assert together.fill_diagonal_(0).abs().max() < 0.2


@pytest.mark.parametrize("rounding", ["stochastic", "kahan"])
@pytest.mark.parametrize("name", MAKERS)
def test_every_optimizer_stays_near_its_float32_run(name, rounding):
    results = []
    for dtype, how in ((torch.float32, "nearest"), (torch.bfloat16, rounding)):
        params = parameters(dtype=dtype)
        optimizer = MAKERS[name](params, rounding=how)
        for seed in range(8):
            give_gradients(params, seed)
            for param in params:  # the same gradients for both
                assert param.grad is not None
                param.grad = param.grad.bfloat16().to(dtype)
            optimizer.step()
        results.append([p.detach().float() for p in params])
    start = [p.detach().float() for p in parameters(dtype=torch.bfloat16)]
    for exact, rounded, first in zip(*results, start, strict=True):
        assert bool(rounded.isfinite().all())
        moved = (exact - first).norm() + 0.02 * first.norm()
        assert (rounded - exact).norm() <= 0.6 * moved


@pytest.mark.parametrize("rounding", ["stochastic", "kahan"])
def test_resume_is_bitwise(rounding):
    def make(params):
        return steepest.AdamW(params, lr=1e-3, rounding=rounding, momentum_dtype=torch.bfloat16)

    params = parameters(dtype=torch.bfloat16)
    optimizer = make(params)
    train(optimizer, params, range(3))
    saved = io.BytesIO()
    torch.save(optimizer.state_dict(), saved)
    resumed = [Parameter(p.detach().clone()) for p in params]
    other = make(resumed)
    saved.seek(0)
    other.load_state_dict(torch.load(saved, weights_only=True))
    train(optimizer, params, range(3, 6))
    train(other, resumed, range(3, 6))
    assert equal(copies(params), copies(resumed))


@pytest.mark.parametrize("name", ["ANDI", "Muon", "AdamW", "SOAP", "Steepest diagonal rows", "ClippedScion"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_bfloat16_momentum(name, rounding):
    """Half the bytes, and within a bfloat16 of the float32 buffers."""
    results = []
    for dtype in (None, torch.bfloat16):
        params = parameters(dtype=torch.float32)
        optimizer = MAKERS[name](params, momentum_dtype=dtype, rounding=rounding)
        train(optimizer, params, range(6))
        results.append(copies(params))
        narrow = [k for p in params for k, v in optimizer.state[p].items() if v.dtype == torch.bfloat16]
        assert set(narrow) <= {"exp_avg", "momentum_buffer"}
        assert bool(narrow) == bool(dtype)
    assert not equal(*results)
    assert close(results[1], results[0], 0.02)


def test_float64_keeps_all_its_bits():
    params = parameters(dtype=torch.float64)
    optimizer = steepest.AdamW(params, rounding="stochastic", momentum_dtype=torch.bfloat16)
    expected = parameters(dtype=torch.float64)
    plain = steepest.AdamW(expected, fused=False)
    train(optimizer, params, range(3))
    train(plain, expected, range(3))
    assert close(copies(params), copies(expected), 1e-14)
    assert {v.dtype for p in params for k, v in optimizer.state[p].items() if k != "step"} == {torch.float64}


def test_kfac_takes_both():
    torch.manual_seed(0)
    for rounding in ("stochastic", "kahan"):
        model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).bfloat16()
        optimizer = steepest.KFAC(model, lr=0.05, rounding=rounding, momentum_dtype=torch.bfloat16)
        x = torch.randn(16, 6).bfloat16()
        losses = []
        for _ in range(20):
            optimizer.zero_grad()
            loss = (model(x) - x[:, :3]).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.7 * losses[0]
        counts = {
            optimizer.state[p]["step"].item() for p in model.parameters() if "step" in optimizer.state[p]
        }
        assert counts == {20.0}
        before = [{name: x.clone() for name, x in optimizer.state[p].items()} for p in model.parameters()]
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for own, p in zip(before, model.parameters(), strict=True):
            assert list(own) == list(optimizer.state[p])
            assert all(torch.equal(x, optimizer.state[p][name]) for name, x in own.items())


def test_what_is_refused():
    half, full = [Parameter(torch.zeros(2, dtype=torch.float16))], [Parameter(torch.zeros(2))]
    with pytest.raises(ValueError, match=r"rounding must be 'nearest' or 'kahan' for torch\.float16"):
        steepest.AdamW(half, rounding="stochastic")
    with pytest.raises(ValueError, match=r"rounding must be one of 'nearest', .* got 'up'"):
        steepest.AdamW(full, rounding="up")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"momentum_dtype must be one of None, torch\.float32"):
        steepest.AdamW(full, momentum_dtype=torch.float16)
    with pytest.raises(ValueError, match="fused=True"):
        steepest.AdamW(full, fused=True, momentum_dtype=torch.bfloat16)
