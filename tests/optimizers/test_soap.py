"""SOAP, KL-Shampoo, KL-SOAP and SPlus against plain restatements and their exact limits.

The eigenbasis of the first gradient is unique for square gradients of full rank only. Rectangular gradients
are confined to one column (or row) space, so that what the null space is spanned by makes no difference.
"""

from typing import Any

import pytest
import torch

from optimizers.trajectories import assert_same, follow, gradients, start
from references.kl import kl_shampoo, kl_soap
from references.soap import soap, splus
from steepest import KLSOAP, SOAP, KLShampoo, SPlus

SQUARE = [(9, 9), (6, 3, 2), (8, 2, 2, 2)]
RECTANGULAR = [(6, 11), (11, 6), (4, 3, 2, 2)]


def confined(shape: tuple[int, ...]) -> list[torch.Tensor]:
    """Gradients of full rank min(m, n) that share one column space (tall) or row space (wide)."""
    m, n = shape[0], start(shape).numel() // shape[0]
    inner = gradients((min(m, n), min(m, n)))
    frame = torch.linalg.qr(start((max(m, n), min(m, n)), seed=5))[0]
    return [(frame @ g if m > n else g @ frame.T).reshape(shape) for g in inner]


@pytest.mark.parametrize("shape", SQUARE)
@pytest.mark.parametrize("frequency", [1, 3, 10])
@pytest.mark.parametrize("shampoo_beta", [None, 0.8])
def test_soap_is_the_published_rule(shape, frequency, shampoo_beta):
    w0, grads = start(shape), gradients(shape)
    hypers: dict[str, Any] = {
        "lr": 0.05,
        "betas": (0.9, 0.95),
        "shampoo_beta": shampoo_beta,
        "weight_decay": 0.1,
        "precondition_frequency": frequency,
    }
    assert_same(follow(SOAP, w0, grads, **hypers, fused=False), soap(w0, grads, **hypers), 1e-10)


@pytest.mark.parametrize("shape", SQUARE)
@pytest.mark.parametrize("frequency", [1, 3, 10])
def test_soap_with_the_current_gradient_is_the_other_convention(shape, frequency):
    """eps is large because the first projection is diagonal up to rounding."""
    w0, grads = start(shape), gradients(shape)
    hypers: dict[str, Any] = {
        "lr": 0.05,
        "eps": 1e-3,
        "weight_decay": 0.1,
        "precondition_frequency": frequency,
        "include_current": True,
    }
    assert_same(follow(SOAP, w0, grads, **hypers, fused=False), soap(w0, grads, **hypers), 1e-10)


@pytest.mark.parametrize("shape", RECTANGULAR)
@pytest.mark.parametrize("frequency", [1, 4])
def test_soap_of_rectangular_matrices(shape, frequency):
    w0, grads = start(shape), confined(shape)
    hypers: dict[str, Any] = {
        "lr": 0.05,
        "eps": 1e-3,
        "weight_decay": 0.1,
        "precondition_frequency": frequency,
    }
    assert_same(follow(SOAP, w0, grads, **hypers, fused=False), soap(w0, grads, **hypers), 1e-10)


@pytest.mark.parametrize("shape", [(6, 11), (11, 6), (4, 3, 2, 2)])
@pytest.mark.parametrize("frequency", [1, 4])
def test_soap_leaves_a_long_side_unrotated(shape, frequency):
    w0, grads = start(shape), gradients(shape)
    hypers: dict[str, Any] = {
        "lr": 0.05,
        "weight_decay": 0.1,
        "precondition_frequency": frequency,
        "max_precondition_dim": 6,
    }
    assert_same(follow(SOAP, w0, grads, **hypers, fused=False), soap(w0, grads, **hypers), 1e-10)


@pytest.mark.parametrize("shape", [(6, 11), (5, 5)])
def test_soap_without_rotation_is_adam_after_a_skipped_step(shape):
    w0, grads = start(shape), gradients(shape)
    hypers: dict[str, Any] = {"lr": 0.05, "betas": (0.9, 0.95), "eps": 1e-30, "weight_decay": 0.0}
    ours = follow(SOAP, w0, grads, **hypers, max_precondition_dim=4)
    assert torch.equal(ours[0], w0)
    assert_same(ours[1:], follow(torch.optim.AdamW, w0, grads[1:], **hypers, foreach=False), 1e-10)


@pytest.mark.parametrize(("make", "reference"), [(KLShampoo, kl_shampoo), (KLSOAP, kl_soap)])
@pytest.mark.parametrize("shape", [*SQUARE, *RECTANGULAR])
@pytest.mark.parametrize("frequency", [1, 3, 10])
@pytest.mark.parametrize("shampoo_beta", [None, 0.8])
def test_kl_is_the_published_rule(make, reference, shape, frequency, shampoo_beta):
    w0 = start(shape)
    grads = gradients(shape) if shape in SQUARE else confined(shape)
    hypers: dict[str, Any] = {
        "lr": 0.02,
        "betas": (0.9, 0.95),
        "shampoo_beta": shampoo_beta,
        "eps": 1e-3,
        "weight_decay": 0.1,
        "precondition_frequency": frequency,
    }
    assert_same(follow(make, w0, grads, **hypers, fused=False), reference(w0, grads, **hypers), 1e-10)


@pytest.mark.parametrize("make", [KLShampoo, KLSOAP])
def test_kl_first_call_only_takes_statistics(make):
    w0, grads = start((5, 5)), gradients((5, 5), 2)
    first, second = follow(make, w0, grads, lr=0.1)
    assert torch.equal(first, w0)
    assert not torch.equal(second, w0)


@pytest.mark.parametrize("shape", [*SQUARE, (7,), ()])
@pytest.mark.parametrize("frequency", [1, 4, 100])
def test_splus_is_the_published_rule(shape, frequency):
    w0, grads = start(shape), gradients(shape)
    lr = 0.1 if len(shape) >= 2 else 50.0  # 0.001 of it is used for what is no matrix
    hypers: dict[str, Any] = {"lr": lr, "weight_decay": 0.1, "precondition_frequency": frequency}
    assert_same(follow(SPlus, w0, grads, **hypers, fused=False), splus(w0, grads, **hypers)[0], 1e-10)


@pytest.mark.parametrize("shape", [(6, 11), (11, 6)])
def test_splus_starts_with_the_sign(shape):
    w0, g = start(shape), gradients(shape, 1)[0]
    (w,) = follow(SPlus, w0, [g], lr=0.1, weight_decay=0.0)
    torch.testing.assert_close(w0 - w, 0.1 * 2 / 17 * g.sign(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(6, 6), (5,)])
def test_splus_evaluates_at_the_average(shape):
    w0, grads = start(shape), gradients(shape)
    parameter = torch.nn.Parameter(w0.clone())
    optimizer = SPlus([parameter], lr=0.5, ema=0.9, precondition_frequency=4, fused=False)
    iterates, averages = splus(w0, grads, lr=0.5, ema=0.9, precondition_frequency=4)
    for g, w, average in zip(grads, iterates, averages, strict=True):
        parameter.grad = g.clone()
        optimizer.step()
        trained = parameter.detach().clone()
        optimizer.eval()
        assert_close(parameter, average)
        optimizer.train()
        assert torch.equal(parameter.detach(), trained)
        assert_close(parameter, w)


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual.detach(), expected, rtol=1e-10, atol=1e-11)
