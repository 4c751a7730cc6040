"""Muon against torch.optim.Muon and against a plain restatement."""

from typing import Any

import pytest
import torch

from optimizers.trajectories import (
    CONV,
    MATRICES,
    VECTORS,
    assert_same,
    follow,
    gradients,
    start,
    state_of,
)
from references.muon import muon
from steepest import AdamW, Muon

SCALES = ["original", "match_rms_adamw", "spectral", "unit_rms", None]
TALL_AND_WIDE = [*MATRICES, (1, 6), (6, 1)]


@pytest.fixture
def torch_muon_without_bf16(monkeypatch):
    """torch.optim.Muon with its cast to bfloat16 lifted (a copy, as the cast would make)."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())
    return torch.optim.Muon


@pytest.mark.parametrize("shape", TALL_AND_WIDE)
@pytest.mark.parametrize("scale", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_equals_torch(torch_muon_without_bf16, shape, scale, nesterov):
    w0, grads = start(shape), gradients(shape)
    hypers: dict[str, Any] = {"lr": 0.02, "momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.1}
    expected = follow(torch_muon_without_bf16, w0, grads, **hypers, adjust_lr_fn=scale)
    assert_same(follow(Muon, w0, grads, **hypers, scale=scale, fused=False), expected)


def test_default_momentum_is_torchs(torch_muon_without_bf16):
    w0, grads = start((9, 20)), gradients((9, 20))
    expected = follow(torch_muon_without_bf16, w0, grads, lr=0.02, weight_decay=0.0)
    assert_same(follow(Muon, w0, grads), expected)


@pytest.mark.parametrize("shape", [(64, 64), (32, 128), (128, 32)])
def test_as_shipped_in_bf16_points_the_same_way(shape):
    w0 = start(shape).float()
    grads = [g.float() for g in gradients(shape)]
    ours = follow(Muon, w0, grads, lr=0.02, weight_decay=0.0)
    theirs = follow(torch.optim.Muon, w0, grads, lr=0.02, weight_decay=0.0)
    a, b = w0, w0
    for next_a, next_b in zip(ours, theirs, strict=True):
        u, v = (next_a - a).flatten(), (next_b - b).flatten()
        assert float(torch.cosine_similarity(u, v, dim=0)) > 0.999
        a, b = next_a, next_b


@pytest.mark.parametrize("shape", [*MATRICES, *CONV])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("orthogonalizer", ["newton_schulz", "polar_express", "svd"])
def test_is_the_published_rule(shape, scale, orthogonalizer):
    w0, grads = start(shape), gradients(shape)
    hypers: dict[str, Any] = {
        "lr": 0.02,
        "momentum": 0.9,
        "weight_decay": 0.1,
        "scale": scale,
        "orthogonalizer": orthogonalizer,
    }
    assert_same(follow(Muon, w0, grads, **hypers, fused=False), muon(w0, grads, **hypers))


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.95])
def test_momentum_forms(momentum, nesterov):
    w0, grads = start((9, 14)), gradients((9, 14))
    hypers: dict[str, Any] = {"lr": 0.02, "momentum": momentum, "nesterov": nesterov, "orthogonalizer": "svd"}
    assert_same(follow(Muon, w0, grads, **hypers, fused=False), muon(w0, grads, **hypers))


@pytest.mark.parametrize("shape", [(9, 30), (30, 9), (6, 7, 3)])
def test_gram_path_is_a_polar_factor(shape):
    """One step from the origin: singular values near one and the right signs."""
    g = gradients(shape, 1)[0]
    (w,) = follow(Muon, torch.zeros_like(g), [g], lr=1.0, scale=None, orthogonalizer="gram")
    o, flat = -w.reshape(shape[0], -1), g.reshape(shape[0], -1)
    values = torch.linalg.svdvals(o)
    assert float(values.max()) < 1.3
    assert float(values.min()) > 0.6
    exact = torch.linalg.svd(flat, full_matrices=False)
    aligned = exact.U.T @ o @ exact.Vh.T
    torch.testing.assert_close(aligned, torch.diag(aligned.diagonal()), rtol=0, atol=1e-9)
    assert bool((aligned.diagonal() > 0.6).all())


@pytest.mark.parametrize("orthogonalizer", ["newton_schulz", "polar_express", "gram", "svd"])
@pytest.mark.parametrize("c", [1e-10, 1e6])
def test_scaling_law(orthogonalizer, c):
    """The size of the gradient does not matter, down to a momentum of norm 1e-10."""
    w0, grads = start((9, 14)) * 0, gradients((9, 14))
    plain = follow(Muon, w0, grads, orthogonalizer=orthogonalizer)
    assert_same(follow(Muon, w0, [c * g for g in grads], orthogonalizer=orthogonalizer), plain, 1e-9)


@pytest.mark.parametrize("shape", VECTORS)
def test_what_is_no_matrix_goes_to_adamw(shape):
    w0, grads = start(shape), gradients(shape)
    aux: dict[str, Any] = {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2}
    expected = follow(torch.optim.AdamW, w0, grads, **aux, foreach=False)
    assert_same(follow(Muon, w0, grads, lr=0.5, weight_decay=0.7, aux=aux, fused=False), expected)


def test_hybrid_is_its_two_halves():
    """One object for matrices, conv and vectors moves each as its own optimizer would."""
    shapes = [(9, 14), (9, 14), (9,), (4, 5, 3, 3), (), (9,)]
    aux: dict[str, Any] = {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2}
    hypers: dict[str, Any] = {"lr": 0.02, "weight_decay": 0.1}
    parameters = [torch.nn.Parameter(start(s, seed=i)) for i, s in enumerate(shapes)]
    sequences = [gradients(s, seed=100 + i) for i, s in enumerate(shapes)]
    optimizer = Muon(parameters, **hypers, aux=aux, fused=False)
    for t in range(len(sequences[0])):
        for p, sequence in zip(parameters, sequences, strict=True):
            p.grad = sequence[t].clone()
        optimizer.step()
    for i, (p, sequence) in enumerate(zip(parameters, sequences, strict=True)):
        w0 = start(shapes[i], seed=i)
        if len(shapes[i]) >= 2:
            expected = muon(w0, sequence, **hypers)
        else:
            expected = follow(torch.optim.AdamW, w0, sequence, **aux, foreach=False)
        torch.testing.assert_close(p.detach(), expected[-1], rtol=1e-12, atol=1e-12)
    assert sorted({group["lr"] for group in optimizer.param_groups}) == [0.02, 0.03]


def test_a_schedule_scales_both_halves():
    parameters = [torch.nn.Parameter(start(s)) for s in [(4, 6), (4,)]]
    optimizer = Muon(parameters, lr=0.02, aux={"lr": 0.001})
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer.step()
    scheduler.step()
    assert sorted(group["lr"] for group in optimizer.param_groups) == [0.0005, 0.01]


def test_state_names():
    matrix = state_of(Muon, start((4, 6)), gradients((4, 6), 3))
    assert set(matrix) == {"momentum_buffer"}
    vector = state_of(Muon, start((4,)), gradients((4,), 3), aux={"lr": 0.01})
    assert set(vector) == set(state_of(AdamW, start((4,)), gradients((4,), 3)))


def test_momentum_buffer_is_the_ema_and_nobodys_workspace():
    grads = gradients((4, 6), 5)
    state = state_of(Muon, start((4, 6)), grads, momentum=0.9, nesterov=False)
    buffer = torch.zeros(4, 6, dtype=torch.float64)
    for g in grads:
        buffer = 0.9 * buffer + 0.1 * g
    torch.testing.assert_close(state["momentum_buffer"], buffer, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("orthogonalizer", ["newton_schulz", "polar_express", "gram", "svd"])
def test_zero_gradient_gives_zero_step(orthogonalizer):
    w0 = start((4, 6))
    for w in follow(Muon, w0, [torch.zeros_like(w0)] * 2, orthogonalizer=orthogonalizer):
        assert torch.equal(w, w0)
