"""The fused Adam of torch: where it is taken, and that it computes what the reference path computes."""

import dataclasses

import pytest
import torch
from torch.nn import Parameter

from steepest import EMA, Adam, AdamW, Diagonal, Frobenius, Max, Muon, Steepest, UnitLMO
from steepest.auxiliary import ADAMW
from steepest.kernels.torch_fused import adam_kernel
from toys import close, copies, equal, give_gradients, parameters, train

GROUP = {"betas": (0.9, 0.99), "maximize": False}


@pytest.mark.parametrize("make", [Adam, AdamW])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("maximize", [False, True])
def test_paths_agree_over_many_steps(make, dtype, maximize):
    settings = {"lr": 0.01, "weight_decay": 0.1, "maximize": maximize, "betas": (0.8, 0.95)}
    results, states = [], []
    for fused in (False, None, True):
        params = parameters(dtype=dtype)
        optimizer = make(params, fused=fused, **settings)
        train(optimizer, params, range(60))
        results.append(copies(params))
        states.append([copies(list(optimizer.state[p].values())) for p in params])
        assert {v.dtype for p in params for v in optimizer.state[p].values()} <= {torch.float32, dtype}
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    assert close(results[1], results[0], tolerance)
    assert equal(results[1], results[2])
    for fused, plain in zip(states[1], states[0], strict=True):
        assert close(fused, plain, tolerance)


def test_one_group_of_mixed_dtypes_and_late_starters():
    """Kernels get lists of one dtype, and every parameter's own count."""
    results = []
    for fused in (False, None):
        mixed = [*parameters(dtype=torch.float32), *parameters(dtype=torch.float64)]
        mixed += parameters(dtype=torch.bfloat16)
        optimizer = AdamW(mixed, lr=0.01, fused=fused)
        for seed in range(6):
            give_gradients(mixed, seed)
            if seed < 3:
                mixed[2].grad = mixed[8].grad = None
            optimizer.step()
        assert [optimizer.state[p]["step"].item() for p in mixed[:3]] == [6, 6, 3]
        results.append(copies(mixed))
    for i in range(3):
        part = slice(6 * i, 6 * i + 6)
        assert close(results[1][part], results[0][part], (1e-6, 1e-14, 0.0)[i])


def test_paths_may_change_on_the_way():
    """Fused, plain and fused again, over one state."""
    params, expected = parameters(), parameters()
    optimizer, reference = AdamW(params, lr=0.01), torch.optim.AdamW(expected, lr=0.01)
    for seed in range(6):
        optimizer.param_groups[0]["fused"] = (None, False, True)[seed % 3]
        train(optimizer, params, [seed])
        train(reference, expected, [seed])
    assert close(copies(params), copies(expected), 1e-13)


def test_the_auxiliary_half_of_a_hybrid_is_fused():
    muon = Muon(parameters())
    aux = muon.param_groups[1]
    assert adam_kernel(ADAMW, aux["params"][0], aux) is not None
    results = []
    for fused in (None, False):
        params = parameters()
        train(Muon(params, fused=fused), params, range(5))
        results.append(copies(params))
    assert close(results[0], results[1], 1e-13)


def test_a_composition_that_is_adam_gets_its_kernel():
    composed, named = parameters(), parameters()
    make = {"preconditioner": Diagonal(beta=0.95), "momentum": EMA(0.8, bias_correction=True), "fused": True}
    train(Steepest(composed, 0.01, **make), composed, range(3))
    train(AdamW(named, 0.01, betas=(0.8, 0.95), weight_decay=0.0), named, range(3))
    assert equal(copies(composed), copies(named))


@pytest.mark.parametrize(
    "change",
    [
        {"decay": "after"},
        {"norm": Max()},
        {"step": UnitLMO()},
        {"momentum": EMA()},
        {"momentum": EMA(bias_correction=True, nesterov=True)},
        {"momentum": EMA(bias_correction=True, where="after")},
        {"preconditioner": Diagonal(1.0)},
        {"preconditioner": Diagonal(beta=None)},
        {"preconditioner": Diagonal(eps_placement="inside")},
        {"preconditioner": Diagonal(bias_correction=False)},
    ],
    ids=str,
)
def test_nothing_else_is_taken_for_adam(change):
    [p] = parameters([(3, 2)])
    assert adam_kernel(ADAMW, p, GROUP) is not None
    assert adam_kernel(dataclasses.replace(ADAMW, norm=Frobenius(), decay="l2"), p, GROUP) is not None
    assert adam_kernel(dataclasses.replace(ADAMW, **change), p, GROUP) is None


def test_true_is_an_error_where_there_is_no_path():
    for params in (
        parameters([(3, 2)], torch.float16),
        [Parameter(torch.zeros(3, 2).T)],
    ):
        with pytest.raises(ValueError, match=r"fused=True, but parameter 0 .* no fused path in AdamW"):
            AdamW(params, fused=True)
        AdamW(params, fused=None)
    with pytest.raises(ValueError, match="no fused path in Muon; use fused=None"):
        Muon(parameters(), fused=True)


def test_gradients_of_any_layout():
    results = []
    for fused in (False, True):
        params = parameters([(6, 5), (4, 3, 2, 2)])
        optimizer = AdamW(params, fused=fused)
        give_gradients(params, 0)
        matrix, conv = params
        assert matrix.grad is not None
        assert conv.grad is not None
        matrix.grad = matrix.grad.T.contiguous().T
        conv.grad = conv.grad.to(memory_format=torch.channels_last)
        optimizer.step()
        results.append(copies(params))
    assert close(results[1], results[0], 1e-14)
