"""Blocked QR against LAPACK's: the same factor, as orthonormal, also where columns depend on each other."""

import pytest
import torch
from torch import Tensor

from linalg.matrices import gaussian
from steepest.linalg import householder, refresh_basis
from steepest.linalg.householder import orthonormalized


@pytest.fixture(autouse=True)
def every_size_is_blocked(monkeypatch):
    monkeypatch.setattr(householder, "_SMALLEST", 1)
    monkeypatch.setattr(householder, "_PANEL", 16)


def identity_error(q: Tensor) -> float:
    return float((q.mT @ q - torch.eye(q.shape[-1], dtype=q.dtype)).abs().max())


@pytest.mark.parametrize("d", [1, 15, 16, 17, 64, 70])
def test_it_is_the_q_of_lapack(d):
    a = gaussian(d, d, dtype=torch.float64)
    q = orthonormalized(a)
    torch.testing.assert_close(q, torch.linalg.qr(a).Q, rtol=0, atol=1e-12)
    assert (q.T @ a).tril(-1).abs().max() < 1e-12 * d


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_batches_are_their_members(dtype):
    a = gaussian(3, 2, 40, 40, dtype=dtype)
    q = orthonormalized(a)
    assert q.shape == a.shape
    assert q.dtype == dtype
    assert identity_error(q) < (1e-5 if dtype == torch.float32 else 1e-13)
    assert torch.equal(q[2, 1], orthonormalized(a[2, 1]))


HARD = {
    "zero": torch.zeros(40, 40),
    "identity": torch.eye(40),
    "triangular": torch.ones(40, 40).triu(),
    "one direction": torch.ones(40, 40),
    "rank 3": gaussian(40, 3) @ gaussian(3, 40, seed=1),
    "graded": gaussian(40, 40) * 10.0 ** -torch.arange(40),
    "zero columns": torch.cat([torch.zeros(40, 20), gaussian(40, 20)], 1),
}


@pytest.mark.parametrize("a", HARD.values(), ids=HARD.keys())
def test_q_is_orthonormal_whatever_the_rank(a):
    q = orthonormalized(a)
    assert identity_error(q) < 2e-6
    r = q.T @ a
    assert r.tril(-1).abs().max() <= 1e-5 * a.abs().max()
    assert (q @ r - a).abs().max() <= 1e-5 * a.abs().max()


def test_what_is_not_finite_stays_so():
    a = gaussian(2, 40, 40)
    a[0, 3, 4] = float("nan")
    q = orthonormalized(a)
    assert not q[0].isfinite().all()
    assert torch.equal(q[1], orthonormalized(a[1]))


def test_a_basis_is_refreshed_as_by_lapack(monkeypatch):
    x = gaussian(40, 60, dtype=torch.float64)
    a, q = x @ x.T, torch.linalg.qr(gaussian(40, 40, dtype=torch.float64, seed=1)).Q
    blocked = refresh_basis(a, q, sort=True)
    monkeypatch.setattr(householder, "_SMALLEST", 10**6)
    plain = refresh_basis(a, q, sort=True)
    assert torch.equal(blocked.permutation, plain.permutation)
    torch.testing.assert_close(blocked.value, plain.value, rtol=0, atol=1e-12)
