"""Steps in regions of mixed precision, beside another default device, and with numbers on a device."""

import contextlib

import pytest
import torch
from torch import nn
from torch.nn import Parameter

import steepest
from steepest.linalg import householder
from steepest.update_size import update_rms
from toys import CURVED, MAKERS, parameters, same, snapshot, train

SURROUNDINGS = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default device": lambda: torch.device("meta"),
}
surrounded = pytest.mark.parametrize("around", SURROUNDINGS.values(), ids=SURROUNDINGS.keys())


@surrounded
@pytest.mark.parametrize("name", MAKERS)
def test_a_step(name, around):
    found = []
    for context in (contextlib.nullcontext, around):
        params = parameters(dtype=torch.float32)
        optimizer = MAKERS[name](params)
        train(optimizer, params, [0])
        for p in params:
            p.grad = p.detach() ** 2
        for _ in range(2):
            with context():
                optimizer.step()
        found.append(snapshot(optimizer))
    assert same(*found)


@surrounded
@pytest.mark.parametrize("front", [False, True])
def test_a_step_of_kfac(front, around):
    found = []
    for context in (contextlib.nullcontext, around):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))
        optimizer = None if front else steepest.KFAC(model, lr=0.1)
        filtered = steepest.KFACPreconditioner(model, kl_clip=1e-3) if front else None
        for _ in range(3):
            model.zero_grad()
            model(torch.randn(9, 7)).square().mean().backward()
            with context():
                if filtered:
                    filtered.precondition(lr=0.1)
                if optimizer:
                    optimizer.step()
        found.append([p.grad if front else p.detach() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("name", ["AdamW", "SOAP"])
def test_loading_and_measuring_beside_another_default_device(name):
    params = parameters(dtype=torch.float32)
    optimizer = MAKERS[name](params)
    train(optimizer, params, [0, 1])
    before, saved = snapshot(optimizer), optimizer.state_dict()
    sizes = update_rms(optimizer, steps=2)
    with torch.device("meta"):
        optimizer.load_state_dict(saved)
        assert update_rms(optimizer, steps=2) == sizes
    assert same(before, snapshot(optimizer))


def test_blocked_qr_beside_another_default_device(monkeypatch):
    monkeypatch.setattr(householder, "_SMALLEST", 1)
    a = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    with torch.device("meta"):
        assert householder.orthonormalized(a).is_cpu


def test_a_rate_beside_another_default_device():
    layer = nn.Linear(16, 16, bias=False)
    found = steepest.suggest_lr("Muon", 1e-3, layer, steps=2).lr
    with torch.device("meta"):
        assert steepest.suggest_lr("Muon", 1e-3, layer, steps=2).lr == found


def test_autocast_is_left_as_it_was():
    weight = Parameter(torch.ones(3, 3))
    weight.grad = torch.ones(3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        steepest.SOAP([weight]).step()
        assert torch.is_autocast_enabled("cpu")
        assert (weight @ weight).dtype == torch.bfloat16


@pytest.mark.parametrize("name", sorted(set(MAKERS) - set(CURVED)))
def test_numbers_on_a_device_are_not_read(name):
    """Meta tensors have none to read; eigendecompositions read a flag of their own."""
    params = [Parameter(p.detach().to("meta")) for p in parameters(dtype=torch.float32)]
    optimizer = MAKERS[name](params)
    for group in optimizer.param_groups:
        for key in ("lr", "weight_decay", "momentum", "beta2", "eps", "radius", "rho"):
            if key in group:
                group[key] = torch.tensor(group[key], device="meta")
        if "betas" in group:
            group["betas"] = tuple(torch.tensor(beta, device="meta") for beta in group["betas"])
    for _ in range(2):
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()
    assert all(p.is_meta for p in params)
