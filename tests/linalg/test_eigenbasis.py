import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from linalg.failing import install, is_diagonal
from linalg.matrices import gaussian
from steepest.linalg import eigenbasis, refresh_basis


def orthonormal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.linalg.qr(gaussian(*shape, shape[-1], seed=seed, dtype=dtype)).Q


def with_eigenvalues(w: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    q = orthonormal(len(w), seed=seed, dtype=torch.float64)
    return (q * w.double()) @ q.T, q


def identity_error(q: Tensor) -> float:
    return (q.mT @ q - torch.eye(q.shape[-1], dtype=q.dtype)).abs().max().item()


# --- eigenbasis --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_columns_are_eigenvectors_in_descending_order(dtype, scale):
    w = torch.tensor([0.1, 3.0, 1.0, 2.0, 0.5])
    a, q = with_eigenvalues(w)
    expected = q[:, w.argsort(descending=True)]
    result = eigenbasis((a * scale).to(dtype))
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    overlap = (expected.to(dtype) * result.value).sum(0).abs()
    assert (overlap - 1).abs().max() < tolerance
    assert identity_error(result.value) < tolerance
    assert result.fallbacks == 0


def test_basis_is_batched():
    x = gaussian(2, 3, 7, 9, dtype=torch.float64)
    a = x @ x.mT
    looped = torch.stack([torch.stack([eigenbasis(m).value for m in row]) for row in a])
    assert torch.equal(eigenbasis(a).value, looped)
    assert torch.equal(eigenbasis(a.bfloat16()).value, eigenbasis(a.bfloat16().float()).value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_degenerate_matrices_give_an_orthonormal_basis(dtype):
    g = gaussian(6, 1, dtype=dtype)
    for a in (torch.zeros(6, 6), torch.eye(6), g @ g.T, torch.full((6, 6), 1e-20), torch.ones(1, 1)):
        assert identity_error(eigenbasis(a.to(dtype)).value) < 1e-5


@pytest.mark.parametrize("how", ["raise", "values", "vectors"])
def test_chain_of_attempts(monkeypatch, how):
    x = gaussian(3, 5, 9)
    a = x @ x.mT
    a[2] = 0
    expected = eigenbasis(a).value
    previous = orthonormal(3, 5, seed=1, dtype=torch.float32)
    failing = install(monkeypatch, lambda m: is_diagonal(m) or m.dtype == torch.float32, how)
    result = eigenbasis(a, previous)
    assert result.value.dtype == torch.float32
    assert ((result.value[:2] * expected[:2]).sum(-2).abs() - 1).abs().max() < 1e-4
    assert torch.equal(result.value[2], previous[2])
    assert result.retried.tolist() == [True, True, True]
    assert result.kept.tolist() == [False, False, True]
    assert result.fallbacks == 3
    # the batch in float32; two matrices in float32 and float64; the third also with two jitters
    assert len(failing.calls) == 1 + 2 + 2 + 4
    assert torch.equal(eigenbasis(a).value[2], torch.eye(5))


def test_nonfinite_matrix_keeps_the_previous_basis():
    a = torch.stack([torch.diag(torch.tensor([1.0, 2.0, 3.0]))] * 2)
    a[0, 1, 1] = float("nan")
    previous = orthonormal(2, 3, dtype=torch.float32)
    result = eigenbasis(a, previous)
    assert torch.equal(result.value[0], previous[0])
    assert torch.equal(result.value[1].abs(), torch.eye(3).flip(-1))
    assert result.kept.tolist() == [True, False]


# --- refresh_basis -----------------------------------------------------------------------------------------


def test_refresh_is_one_step_of_orthogonal_iteration():
    x = gaussian(4, 6, 12, dtype=torch.float64)
    a = x @ x.mT
    q = orthonormal(4, 6, seed=1)
    result = refresh_basis(a, q)
    expected = torch.linalg.qr(a @ q).Q
    # the step of one slice is that of the batch, and the signs of columns are free
    assert ((result.value * expected).sum(-2).abs() - 1).abs().max() < 1e-12
    assert identity_error(result.value) < 1e-12
    assert torch.equal(result.permutation, torch.arange(6).expand(4, 6))
    looped = torch.stack([refresh_basis(m, b).value for m, b in zip(a, q, strict=True)])
    assert (result.value - looped).abs().max() < 1e-12
    # upper triangular R: A Q = Q' R
    r = result.value.mT @ a @ q
    assert r.tril(-1).abs().max() < 1e-11


def test_sorting_permutes_the_columns_by_their_rayleigh_quotient():
    x = gaussian(3, 6, 12, dtype=torch.float64)
    a, q = x @ x.mT, orthonormal(3, 6, seed=1)
    result = refresh_basis(a, q, sort=True)
    for i in range(3):
        order = torch.diagonal(q[i].T @ a[i] @ q[i]).argsort(descending=True)
        assert result.permutation[i].tolist() == order.tolist()
        expected = torch.linalg.qr(a[i] @ q[i][:, order]).Q
        assert ((result.value[i] * expected).sum(0).abs() - 1).abs().max() < 1e-12
    assert not torch.equal(result.permutation, torch.arange(6).expand(3, 6))


@pytest.mark.parametrize("sort", [True, False])
def test_repeated_refreshes_reach_the_eigenbasis(sort):
    a, _ = with_eigenvalues(2.0 ** torch.arange(6, 0, -1))
    q = torch.eye(6, dtype=torch.float64)
    for _ in range(60):
        q = refresh_basis(a, q, sort=sort).value
    off = q.T @ a @ q
    assert (off - off.diagonal().diag()).abs().max() < 1e-10
    assert torch.allclose(off.diagonal(), 2.0 ** torch.arange(6, 0, -1, dtype=torch.float64))


@pytest.mark.parametrize("sort", [True, False])
@pytest.mark.parametrize("scale", [1e-30, 2.0**-60, 1e30])
def test_refresh_does_not_depend_on_the_scale(sort, scale):
    x = gaussian(5, 9)
    a, q = x @ x.T, orthonormal(5, dtype=torch.float32)
    result, expected = refresh_basis(a * scale, q, sort=sort), refresh_basis(a, q, sort=sort)
    assert torch.allclose(result.value, expected.value, atol=1e-5)
    assert torch.equal(result.permutation, expected.permutation)


@pytest.mark.parametrize("sort", [True, False])
def test_refresh_of_the_exact_basis_changes_only_signs(sort):
    x = gaussian(8, 20, dtype=torch.float64)
    a = x @ x.T
    q = eigenbasis(a).value
    result = refresh_basis(a, q, sort=sort)
    assert ((result.value * q).sum(0).abs() - 1).abs().max() < 1e-12
    assert result.permutation.tolist() == list(range(8))


@pytest.mark.parametrize("sort", [True, False])
def test_nonfinite_or_zero_matrix_keeps_the_basis(sort):
    x = gaussian(5, 4, 9)
    a, q = x @ x.mT, orthonormal(5, 4, dtype=torch.float32)
    expected = refresh_basis(a, q, sort=sort)
    a[0, 1, 2] = float("nan")
    a[1] = float("inf")
    a[2] = 0
    result = refresh_basis(a, q, sort=sort)
    assert result.kept.tolist() == [True, True, False, False, False]
    assert torch.equal(result.value[:3], q[:3])
    assert torch.equal(result.permutation[:3], torch.arange(4).expand(3, 4))
    assert torch.equal(result.value[3:], expected.value[3:])
    assert torch.equal(result.permutation[3:], expected.permutation[3:])


def test_failing_qr_keeps_the_basis(monkeypatch):
    qr = torch.linalg.qr

    def broken(a):
        q, r = qr(a)
        q[1] = float("nan")
        return type(qr(torch.eye(1)))((q, r))

    x = gaussian(3, 4, 9)
    a, q = x @ x.mT, orthonormal(3, 4, dtype=torch.float32)
    expected = refresh_basis(a, q, sort=True)
    monkeypatch.setattr(torch.linalg, "qr", broken)
    result = refresh_basis(a, q, sort=True)
    assert result.kept.tolist() == [False, True, False]
    assert torch.equal(result.value[1], q[1])
    assert result.permutation[1].tolist() == [0, 1, 2, 3]
    assert torch.equal(result.value[[0, 2]], expected.value[[0, 2]])


def test_refresh_never_reads_a_value_back():
    a = torch.empty(3, 5, 5, device="meta")
    assert refresh_basis(a, a, sort=True).value.shape == (3, 5, 5)


def test_refresh_dtype():
    a, q = torch.eye(3, dtype=torch.bfloat16), torch.eye(3)
    assert refresh_basis(a, q).value.dtype == torch.float32
    assert refresh_basis(a, q.double()).value.dtype == torch.float64


@pytest.mark.parametrize("shape", [(0, 0), (2, 0, 0), (0, 3, 3)])
def test_empty(shape):
    a = torch.zeros(shape)
    assert eigenbasis(a).value.shape == shape
    result = refresh_basis(a, a, sort=True)
    assert result.value.shape == shape
    assert result.permutation.shape == shape[:-1]
    assert result.kept.shape == shape[:-2]


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    d=st.integers(1, 10),
    k=st.integers(1, 3),
    rank=st.integers(1, 10),
    sort=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_bases_stay_orthonormal(d, k, rank, sort, seed):
    x = gaussian(k, d, rank, seed=seed)
    a = x @ x.mT
    assert identity_error(eigenbasis(a).value) < 1e-5
    q = orthonormal(k, d, seed=seed + 1, dtype=torch.float32)
    for _ in range(3):
        q = refresh_basis(a, q, sort=sort).value
        assert identity_error(q) < 1e-5


# --- errors ------------------------------------------------------------------------------------------------


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"a has shape \(2, 3\)"):
        eigenbasis(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"previous has shape \(3, 3\): must be \(2, 2\)"):
        eigenbasis(torch.eye(2), torch.eye(3))
    with pytest.raises(ValueError, match=r"q has shape \(3, 3\): must be \(2, 2\)"):
        refresh_basis(torch.eye(2), torch.eye(3))
    with pytest.raises(TypeError, match=r"q has dtype torch.int64"):
        refresh_basis(torch.eye(2), torch.eye(2, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"a has dtype torch.bool"):
        refresh_basis(torch.ones(2, 2, dtype=torch.bool), torch.eye(2))
