"""The restatements against packages that implement the same published rule.

The peers cast their bases to float32; the cast is lifted here. Known difference: pytorch_optimizer's MADGRAD
without momentum recovers x0 from the current weight, which decoupled decay has moved.
"""

import types
from typing import Any

import pytest
import torch

from optimizers.trajectories import assert_same, gradients, start
from references.diagonal import madgrad
from references.soap import soap, splus

peers = pytest.importorskip("pytorch_optimizer")

W0, GRADS = start((9, 9)), gradients((9, 9))


class Float64Torch(types.ModuleType):
    """torch, with float64 under the name of float32."""

    def __getattr__(self, name: str) -> Any:
        return torch.float64 if name == "float32" else getattr(torch, name)


@pytest.fixture
def without_float32(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", lambda self: self.double())
    monkeypatch.setattr("pytorch_optimizer.optimizer.soap.torch", Float64Torch("torch"))
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(previous)


@pytest.mark.parametrize(("momentum", "decoupled"), [(0.0, False), (0.9, False), (0.9, True)])
def test_madgrad(momentum, decoupled):
    hypers: dict[str, Any] = {"lr": 0.05, "momentum": momentum, "weight_decay": 0.1, "eps": 1e-3}
    theirs = follow_in_place(peers.MADGRAD, **hypers, weight_decouple=decoupled)
    assert_same(madgrad(W0, GRADS, **hypers, decoupled=decoupled), theirs)


@pytest.mark.usefixtures("without_float32")
@pytest.mark.parametrize("frequency", [1, 3, 10])
@pytest.mark.parametrize("shampoo_beta", [None, 0.8])
def test_soap(frequency, shampoo_beta):
    hypers: dict[str, Any] = {
        "lr": 0.05,
        "betas": (0.9, 0.95),
        "shampoo_beta": shampoo_beta,
        "eps": 1e-4,
        "weight_decay": 0.1,
        "precondition_frequency": frequency,
    }
    assert_same(soap(W0, GRADS, **hypers), follow_in_place(peers.SOAP, **hypers))


@pytest.mark.usefixtures("without_float32")
@pytest.mark.parametrize("frequency", [1, 4, 100])
def test_splus(frequency):
    theirs = follow_in_place(peers.SPlus, lr=0.1, weight_decay=0.1, inverse_steps=frequency, eps=1e-30)
    assert_same(splus(W0, GRADS, lr=0.1, weight_decay=0.1, precondition_frequency=frequency)[0], theirs)


def follow_in_place(make, **hypers) -> list[torch.Tensor]:
    """As ``follow``, for optimizers that write into the gradient."""
    parameter = torch.nn.Parameter(W0.clone())
    optimizer = make([parameter], **hypers)
    iterates = []
    for g in GRADS:
        parameter.grad = g.clone()
        optimizer.step()
        iterates.append(parameter.detach().clone())
    return iterates
