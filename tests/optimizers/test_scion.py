"""Scion and ClippedScion against plain restatements and the limits of the clip."""

from typing import Any

import pytest
import torch

from optimizers.trajectories import CONV, MATRICES, VECTORS, assert_same, follow, gradients, start
from references.scion import clipped_scion, scion
from steepest import ClippedScion, Scion

NORMS = [
    "spectral",
    "spectral_max",
    "sign",
    "sign_raw",
    "col",
    "col_normalized",
    "row",
    "row_raw",
    "bias_rms",
]


@pytest.mark.parametrize("shape", [*MATRICES, *CONV, *VECTORS])
@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("orthogonalizer", ["svd", "newton_schulz"])
def test_auto_is_the_published_rule(shape, constrained, orthogonalizer):
    w0, grads = start(shape), gradients(shape)
    hypers: dict[str, Any] = {
        "lr": 0.05,
        "momentum": 0.8,
        "radius": 1.5,
        "constrained": constrained,
        "orthogonalizer": orthogonalizer,
    }
    assert_same(follow(Scion, w0, grads, **hypers, fused=False), scion(w0, grads, **hypers), 1e-11)


@pytest.mark.parametrize("shape", MATRICES)
@pytest.mark.parametrize("norm", NORMS)
def test_each_norm_is_the_published_rule(shape, norm):
    w0, grads = start(shape), gradients(shape)
    hypers: dict[str, Any] = {"lr": 0.05, "norm": norm, "radius": 3.0, "orthogonalizer": "svd"}
    assert_same(follow(Scion, w0, grads, **hypers, fused=False), scion(w0, grads, **hypers), 1e-11)


@pytest.mark.parametrize("shape", [(10, 3, 2, 2), (4, 5, 3, 3), (6, 7, 3)])
def test_conv_norm_by_name(shape):
    w0, grads = start(shape), gradients(shape)
    ours = follow(Scion, w0, grads, lr=0.05, norm="spectral_conv", orthogonalizer="svd", fused=False)
    assert_same(ours, scion(w0, grads, lr=0.05, norm="spectral_conv", orthogonalizer="svd"), 1e-11)


NETWORK: list[dict[str, Any]] = [
    {"shape": (9, 14), "norm": "spectral", "radius": 2.0},
    {"shape": (4, 5, 3, 3), "norm": "spectral_conv", "radius": 1.0},
    {"shape": (6, 10), "norm": "sign", "radius": 30.0},
    {"shape": (7,), "norm": "bias_rms", "radius": 0.5},
]


def network(make, **hypers):
    """Final weights of the network by ``make`` and, alike, by the restatement."""
    starts = [start(layer["shape"], seed=i) for i, layer in enumerate(NETWORK)]
    sequences = [gradients(layer["shape"], seed=50 + i) for i, layer in enumerate(NETWORK)]
    parameters = [torch.nn.Parameter(w.clone()) for w in starts]
    groups = [
        {"params": [p], "norm": layer["norm"], "radius": layer["radius"]}
        for p, layer in zip(parameters, NETWORK, strict=True)
    ]
    optimizer = make(groups, **hypers, orthogonalizer="svd", fused=False)
    iterates = []
    for t in range(len(sequences[0])):
        for p, sequence in zip(parameters, sequences, strict=True):
            p.grad = sequence[t].clone()
        optimizer.step()
        iterates.append([p.detach().clone() for p in parameters])
    return iterates, starts, [[s[t] for s in sequences] for t in range(len(sequences[0]))]


@pytest.mark.parametrize("rho", [1e-3, 3.0, 10.0, 1e3])
@pytest.mark.parametrize("constrained", [False, True])
def test_clipped_is_the_published_rule(rho, constrained):
    """One clip for the whole network, below, at and above the threshold."""
    actual, starts, grads = network(ClippedScion, lr=0.05, rho=rho, constrained=constrained)
    expected = clipped_scion(
        starts,
        grads,
        0.05,
        rho,
        norms=[layer["norm"] for layer in NETWORK],
        radii=[layer["radius"] for layer in NETWORK],
        constrained=constrained,
        orthogonalizer="svd",
    )
    for layer in range(len(NETWORK)):
        ours, reference = ([step[layer] for step in steps] for steps in (actual, expected))
        for a, b in zip(ours, reference, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_clipped_with_vanishing_rho_is_scion():
    clipped, _, _ = network(ClippedScion, lr=0.05, rho=1e-12)
    plain, _, _ = network(Scion, lr=0.05)
    for a, b in zip(clipped, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
