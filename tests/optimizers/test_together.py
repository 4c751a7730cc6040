"""Many parameters in one optimizer move as each would alone.

Equal shapes may be computed in stacks; parameters of one stack may have taken different numbers of steps,
belong to groups with other hyperparameters, or lie in memory in another order.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from optimizers.trajectories import gradients, start
from references import diagonal, sgd
from references import muon as spectral
from references.andi import andi
from references.kl import kl_shampoo, kl_soap
from references.shampoo import one_sided_shampoo, shampoo
from references.soap import soap, splus
from steepest import (
    ANDI,
    KLSOAP,
    MADGRAD,
    SOAP,
    Adagrad,
    Adam,
    AdamSANIA,
    AdamW,
    KLShampoo,
    MuAdam,
    MuAdamSANIA,
    Muon,
    NormalizedSGD,
    OneSidedShampoo,
    Shampoo,
    SignSGD,
    SPlus,
)

EPS: dict[str, Any] = {"eps": 1e-3}


def coupled_adam(*args, **kwargs) -> list[Tensor]:
    return diagonal.adam(*args, **kwargs, decoupled=False)


def splus_iterates(*args, **kwargs) -> list[Tensor]:
    return splus(*args, **kwargs)[0]


CASES: list[tuple[Any, Any, dict[str, Any], dict[str, Any]]] = [
    (NormalizedSGD, sgd.normalized_sgd, {"momentum": 0.9}, {"momentum": 0.5}),
    (SignSGD, sgd.sign_sgd, {"momentum": 0.9}, {"momentum": 0.5, "nesterov": True}),
    (Adam, coupled_adam, {"betas": (0.8, 0.95), **EPS}, {"betas": (0.5, 0.9), **EPS}),
    (AdamW, diagonal.adam, {"betas": (0.8, 0.95), **EPS}, {"betas": (0.5, 0.9), **EPS}),
    (AdamSANIA, diagonal.adam_sania, {"betas": (0.8, 0.95), **EPS}, {"betas": (0.5, 0.9), **EPS}),
    (Adagrad, diagonal.adagrad, EPS, {"eps": 1e-2}),
    (MADGRAD, diagonal.madgrad, {}, {"momentum": 0.0, "decoupled": True}),
    (ANDI, andi, {"threshold": 3}, {"threshold": 3, "momentum": 0.5, "mixing": "lateral"}),
    (ANDI, andi, {"momentum_init": "gradient"}, {"momentum_init": "zero", "nesterov": False}),
    (Muon, spectral.muon, {}, {"momentum": 0.5, "nesterov": False, "scale": "unit_rms"}),
    (MuAdam, spectral.muadam, EPS, {"betas": (0.5, 0.9), **EPS, "orthogonalizer": "svd"}),
    (MuAdamSANIA, spectral.muadam_sania, EPS, {"betas": (0.5, 0.9), **EPS, "orthogonalizer": "svd"}),
]
KRONECKER: list[tuple[Any, Any, dict[str, Any], dict[str, Any]]] = [
    (Shampoo, shampoo, {"eps": 1e-2}, {"eps": 1e-2, "betas": (0.5, 0.9), "precondition_frequency": 4}),
    (OneSidedShampoo, one_sided_shampoo, {"eps": 1e-2}, {"eps": 1e-2, "side": "right"}),
    (SOAP, soap, {"precondition_frequency": 3}, {"precondition_frequency": 4, "betas": (0.5, 0.9)}),
    (SOAP, soap, {"include_current": True, **EPS}, {"include_current": False, "max_precondition_dim": 5}),
    (KLShampoo, kl_shampoo, {"precondition_frequency": 3, **EPS}, {"betas": (0.5, 0.9), **EPS}),
    (KLSOAP, kl_soap, {"precondition_frequency": 3, **EPS}, {"betas": (0.5, 0.9), **EPS}),
    (
        SPlus,
        splus_iterates,
        {"precondition_frequency": 3},
        {"betas": (0.5, 0.9), "precondition_frequency": 4},
    ),
]
SQUARE = [(5, 5), (5, 5), (5, 5), (6, 6), (6, 3, 2), (6, 3, 2), (4, 2, 2), (4, 4)]
SHAPES = [(5, 8), (5, 8), (5, 8), (8, 5), (4, 5, 2, 2), (4, 5, 2, 2), (6, 6), (6, 6)]
STEPS = 22


def turned(x: Tensor) -> Tensor:
    """The same values with the first and last dimension exchanged in memory."""
    return x.transpose(0, -1).contiguous().transpose(0, -1)


def absent(parameter: int, t: int) -> bool:
    """Some parameters have no gradient at some steps, and one starts late."""
    return (parameter == 1 and t % 3 == 0) or (parameter == 2 and t < 5) or (parameter == 5 and t in (7, 8))


@pytest.mark.parametrize(("make", "reference", "first", "second"), [*CASES, *KRONECKER])
def test_each_moves_as_alone(make, reference, first, second):
    kronecker = any(make is case[0] for case in KRONECKER)
    shapes = SQUARE if kronecker else SHAPES  # an eigenbasis needs a first gradient of full rank to be unique
    sequences = [gradients(shape, STEPS, seed=20 + i) for i, shape in enumerate(shapes)]
    starts = [start(shape, seed=i) for i, shape in enumerate(shapes)]
    parameters = [
        torch.nn.Parameter(turned(w) if i in (0, 4, 7) else w.clone()) for i, w in enumerate(starts)
    ]
    in_second = {i for i in range(len(shapes)) if i % 4 == 3 or i == 0}
    hypers: list[dict[str, Any]] = [
        {"lr": 0.03, "weight_decay": 0.1, **first},
        {"lr": 0.01, "weight_decay": 0.3, **second},
    ]
    groups = [
        {"params": [p for i, p in enumerate(parameters) if (i in in_second) == bool(k)], **hypers[k]}
        for k in range(2)
    ]
    optimizer = make(groups, lr=0.5, fused=False)
    for t in range(STEPS):
        for i, p in enumerate(parameters):
            g = sequences[i][t]
            p.grad = None if absent(i, t) else turned(g) if i in (0, 3, 5) else g.clone()
        before = [p.detach().clone() for p in parameters]
        optimizer.step()
        for i, p in enumerate(parameters):
            assert not absent(i, t) or torch.equal(p.detach(), before[i])
    for i, p in enumerate(parameters):
        seen = [g for t, g in enumerate(sequences[i]) if not absent(i, t)]
        expected = reference(starts[i], seen, **hypers[i in in_second])[-1]
        torch.testing.assert_close(p.detach(), expected, rtol=1e-10 if kronecker else 1e-11, atol=1e-11)
        assert float((expected - starts[i]).abs().max()) > 1e-3


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize(("make", "reference", "first", "second"), CASES[:9])
def test_float32_follows_the_float64_rule(make, reference, first, second, fused):
    """The path that is picked by default, and the plain one, stay within float32 rounding of the rule."""
    for hypers in (first, second):
        for shape in [(5, 8), (4, 5, 2, 2), (40, 33), (7,)]:
            w0, grads = start(shape).float(), [g.float() for g in gradients(shape, STEPS)]
            parameter = torch.nn.Parameter(w0.clone())
            optimizer = make([parameter], lr=0.03, weight_decay=0.1, **hypers, fused=fused)
            for g in grads:
                parameter.grad = g.clone()
                optimizer.step()
            doubled = [g.double() for g in grads]
            expected = reference(w0.double(), doubled, lr=0.03, weight_decay=0.1, **hypers)[-1]
            torch.testing.assert_close(parameter.detach().double(), expected, rtol=2e-5, atol=2e-5)
