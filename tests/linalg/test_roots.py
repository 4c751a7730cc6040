import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from linalg.failing import install
from linalg.matrices import gaussian
from steepest.linalg import inverse_root, symmetric_eigen, symmetric_power

EXPONENTS = [-0.25, -0.5, -1.0, -0.3, -2.0, 0.5, 1.0, 0.0, 1 / 3]
HOWS = ["raise", "values", "vectors"]


def with_eigenvalues(w: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    q = torch.linalg.qr(gaussian(len(w), len(w), seed=seed, dtype=torch.float64)).Q
    return (q * w.double()) @ q.T, q


def psd(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    x = gaussian(*shape, 2 * shape[-1], seed=seed, dtype=torch.float64)
    return (x @ x.mT / shape[-1]).to(dtype)


# --- values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("eps", [0.0, 1e-12, 0.1, 10.0])
@pytest.mark.parametrize("d", [1, 2, 7, 40])
def test_known_spectrum(exponent, eps, d):
    w = torch.logspace(-1, 1, d, dtype=torch.float64)
    a, q = with_eigenvalues(w)
    expected = (q * (w + eps) ** exponent) @ q.T
    result = symmetric_power(a, exponent, eps)
    assert (result.value - expected).abs().max() < 1e-12 * max(1.0, expected.abs().max().item())
    assert result.value.dtype == torch.float64
    assert not result.retried.any()
    assert not result.kept.any()
    assert result.fallbacks == 0
    single = symmetric_power(a.float(), exponent, eps).value
    assert single.dtype == torch.float32
    assert (single - expected).abs().max() < 2e-5 * max(1.0, expected.abs().max().item())


@pytest.mark.parametrize("p", [1, 2, 4, 3, 2.5])
def test_inverse_root_is_minus_one_over_p(p):
    a = psd(3, 6)
    assert torch.equal(inverse_root(a, p, 1e-3).value, symmetric_power(a, -1 / p, 1e-3).value)
    if isinstance(p, int):
        root = inverse_root(a, p, 1e-3).value
        identity = torch.linalg.matrix_power(root, p) @ (a + 1e-3 * torch.eye(6, dtype=a.dtype))
        assert (identity - torch.eye(6)).abs().max() < 1e-10


def test_result_is_symmetric_and_semidefinite():
    x = gaussian(30, 3)
    value = inverse_root(x @ x.T, 4, 1e-12).value
    assert (value - value.T).abs().max() <= 1e-5 * value.abs().max()
    assert torch.linalg.eigvalsh(value.double()).min() > -1e-3 * value.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-20, 1e-30, 1e20, 1e30])
def test_scale(dtype, scale):
    """(c A)^e = c^e A^e for eps = 0, and eps is compared with the matrix as it was given."""
    a = psd(2, 8, dtype=dtype)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    for exponent in (-0.25, -0.5, 0.5):
        scaled = symmetric_power(a * scale, exponent).value / scale**exponent
        assert torch.allclose(scaled, symmetric_power(a, exponent).value, rtol=tolerance, atol=tolerance)
    for eps in (1e-3, 1.0):
        scaled = symmetric_power(a * scale, -0.25, eps * scale).value / scale**-0.25
        assert torch.allclose(scaled, symmetric_power(a, -0.25, eps).value, rtol=tolerance, atol=tolerance)
    absolute = symmetric_power(a * scale, -0.5, 1.0).value
    if scale < 1:
        assert torch.allclose(absolute, torch.eye(8, dtype=dtype).expand(2, 8, 8), atol=1e-6)
    else:
        unperturbed = symmetric_power(a * scale, -0.5).value
        assert torch.allclose(absolute, unperturbed, rtol=tolerance, atol=tolerance * scale**-0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_matrix(dtype):
    a = torch.zeros(2, 5, 5, dtype=dtype)
    eye = torch.eye(5, dtype=dtype)
    assert torch.allclose(inverse_root(a, 4, 1e-12).value, 1e3 * eye, rtol=1e-5)
    assert torch.equal(inverse_root(a, 4).value, a)
    assert torch.equal(symmetric_power(a, 0.5).value, a)
    assert inverse_root(a, 4).fallbacks == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_rank_one(dtype, scale):
    g = gaussian(12, dtype=dtype) * scale
    a = torch.outer(g, g)
    norm = g.norm()
    v = g / norm
    root = symmetric_power(a, -0.5).value * norm
    assert torch.allclose(root, torch.outer(v, v), atol=1e-5)
    # with eps the null directions are divided by its root: (A + eps I)^-1/2 v = v / sqrt(|g|^2 + eps)
    eps = 1e-3 * norm.item() ** 2
    root = inverse_root(a, 2, eps).value * norm
    expected = torch.outer(v, v) / math.sqrt(1.001) + (torch.eye(12) - torch.outer(v, v)) / math.sqrt(1e-3)
    assert torch.allclose(root, expected.to(dtype), rtol=1e-3, atol=1e-3)


def test_slightly_negative_eigenvalues_count_as_zero():
    a, q = with_eigenvalues(torch.tensor([1.0, 0.5, -1e-9]))
    expected = (q * torch.tensor([1.01, 0.51, 0.01], dtype=torch.float64) ** -0.5) @ q.T
    assert (symmetric_power(a, -0.5, 0.01).value - expected).abs().max() < 1e-12
    assert symmetric_power(a, -0.5).value.isfinite().all()


@pytest.mark.parametrize("exponent", [-0.25, 0.5])
def test_batched_equals_looped(exponent):
    a = psd(2, 3, 9) * torch.logspace(-20, 20, 6, dtype=torch.float64).view(2, 3, 1, 1)
    a[1, 0] = 0
    result = symmetric_power(a, exponent, 1e-30)
    looped = torch.stack([torch.stack([symmetric_power(m, exponent, 1e-30).value for m in row]) for row in a])
    largest = looped.abs().amax((-2, -1), keepdim=True).clamp_min(1e-300)
    assert ((result.value - looped).abs() / largest).max() < 1e-13
    assert result.kept.shape == result.retried.shape == (2, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_computed_in_float32(dtype):
    a = psd(6).to(dtype)
    assert torch.equal(inverse_root(a, 4, 1e-3).value, inverse_root(a.float(), 4, 1e-3).value)


def test_only_the_lower_triangle_decides():
    a = psd(5)
    assert torch.equal(inverse_root(a.tril(), 2, 0.1).value, inverse_root(a, 2, 0.1).value)


@pytest.mark.parametrize("shape", [(0, 0), (3, 0, 0), (0, 4, 4)])
def test_empty(shape):
    result = inverse_root(torch.zeros(shape), 4, 1e-3)
    assert result.value.shape == shape
    assert result.kept.shape == shape[:-2]
    assert result.fallbacks == 0


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    d=st.integers(1, 12),
    k=st.integers(1, 3),
    rank=st.integers(0, 12),
    power=st.integers(-60, 60),
    exponent=st.sampled_from([-0.25, -0.5, -1.0]),
    seed=st.integers(0, 2**20),
)
def test_pseudo_inverse_power(d, k, rank, power, exponent, seed):
    """With r = min(rank, d), A^e A^-e is the projector on the range of A: its trace is the rank."""
    r = min(rank, d)
    q = torch.linalg.qr(gaussian(k, d, d, seed=seed, dtype=torch.float64)).Q[..., :r]
    w = torch.linspace(1, 2, r, dtype=torch.float64)
    a = ((q * w) @ q.mT).float() * 2.0**power
    result = symmetric_power(a, exponent).value.double() @ symmetric_power(a, -exponent).value.double()
    assert (result - q @ q.mT).abs().max() < 1e-3


# --- failures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", HOWS)
def test_float32_failure_is_retried_in_float64(monkeypatch, how):
    a = psd(3, 6, dtype=torch.float32)
    expected = inverse_root(a, 4, 1e-6).value
    failing = install(monkeypatch, lambda m: m.dtype == torch.float32, how)
    result = inverse_root(a, 4, 1e-6)
    assert result.value.dtype == torch.float32
    assert torch.allclose(result.value, expected, rtol=1e-5, atol=1e-5)
    assert result.retried.tolist() == [True] * 3
    assert result.kept.tolist() == [False] * 3
    assert result.fallbacks == 3
    alone = [((6, 6), torch.float32), ((6, 6), torch.float64)]
    assert failing.calls == [((3, 6, 6), torch.float32), *alone * 3]


@pytest.mark.parametrize("how", HOWS)
def test_float64_failure_is_retried_with_jitter(monkeypatch, how):
    a = psd(6)
    a /= a.abs().max()
    expected = inverse_root(a, 4, 1e-6).value
    failing = install(monkeypatch, lambda m: bool((m == a).all()), how)
    result = inverse_root(a, 4, 1e-6)
    assert failing.calls == [((1, 6, 6), torch.float64), ((6, 6), torch.float64), ((6, 6), torch.float64)]
    assert 0 < (result.value - expected).abs().max() < 1e-10
    assert (result.fallbacks, result.kept.item()) == (1, False)


@pytest.mark.parametrize("how", HOWS)
def test_stubborn_matrix_gets_more_jitter(monkeypatch, how):
    a = psd(6)
    a /= a.abs().max()
    expected = inverse_root(a, 4, 1e-2).value
    failing = install(monkeypatch, lambda m: bool((m - a).abs().max() < 1e-9), how)
    result = inverse_root(a, 4, 1e-2)
    assert len(failing.calls) == 4
    assert 1e-10 < (result.value - expected).abs().max() < 1e-5
    assert (result.fallbacks, result.kept.item()) == (1, False)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hopeless_matrix_keeps_the_previous_value(monkeypatch, how, dtype):
    a = psd(3, 6, dtype=dtype)
    a[1] = 0  # recognised whatever jitter is added
    expected = inverse_root(a, 4, 1e-6).value
    previous = gaussian(3, 6, 6, dtype=dtype)
    failing = install(monkeypatch, lambda m: bool((m - m.diagonal().diag() == 0).all()), how)
    result = inverse_root(a, 4, 1e-6, previous=previous)
    assert torch.equal(result.value[1], previous[1])
    assert torch.allclose(result.value[[0, 2]], expected[[0, 2]])
    assert result.kept.tolist() == result.retried.tolist() == [False, True, False]
    assert result.fallbacks == 1
    # the batch, each matrix alone, and for the second one float64 and two jitters
    assert len(failing.calls) == 1 + 3 + 3
    without = inverse_root(a, 4, 1e-6)
    assert torch.equal(without.value[1], torch.eye(6, dtype=dtype))


def test_nonfinite_matrix_keeps_the_previous_value_and_leaves_the_others_alone():
    for bad in (float("nan"), float("inf"), -float("inf")):
        a = psd(3, 6, dtype=torch.float32)
        expected = inverse_root(a, 2, 1e-6).value
        a[2, 1, 1] = bad
        previous = gaussian(3, 6, 6)
        result = inverse_root(a, 2, 1e-6, previous=previous)
        assert torch.equal(result.value[2], previous[2])
        assert torch.equal(result.value[:2], expected[:2])
        assert result.kept.tolist() == result.retried.tolist() == [False, False, True]


def test_overflowing_power_keeps_the_previous_value():
    a = torch.stack([torch.eye(3) * 1e-30, torch.eye(3)])
    result = symmetric_power(a, -2.0, 1e-35, previous=7 * torch.ones(2, 3, 3))
    assert torch.equal(result.value[0], 7 * torch.ones(3, 3))
    assert torch.equal(result.value[1], torch.eye(3))
    assert result.kept.tolist() == [True, False]


def test_symmetric_eigen_reports_failures_as_nan(monkeypatch):
    a = psd(2, 4)
    a[0] = 0
    install(monkeypatch, lambda m: bool((m - m.diagonal().diag() == 0).all()), "raise")
    eigen = symmetric_eigen(a)
    assert eigen.failed.tolist() == eigen.retried.tolist() == [True, False]
    assert eigen.values[0].isnan().all()
    assert eigen.vectors[0].isnan().all()
    assert ((eigen.vectors[1] * eigen.values[1]) @ eigen.vectors[1].T - a[1]).abs().max() < 1e-12
    assert (eigen.values[1].diff() >= 0).all()


# --- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0, -4, float("nan"), float("inf")])
def test_bad_p(p):
    with pytest.raises(ValueError, match=rf"p={p!r}.*> 0"):
        inverse_root(torch.eye(2), p)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"eps=-1\.0.*>= 0"):
        inverse_root(torch.eye(2), 2, -1.0)
    with pytest.raises(ValueError, match=r"eps=nan"):
        symmetric_power(torch.eye(2), 1.0, float("nan"))
    with pytest.raises(ValueError, match=r"exponent=inf"):
        symmetric_power(torch.eye(2), float("inf"))
    with pytest.raises(ValueError, match=r"a has shape \(2, 3\): must be \(\.\.\., d, d\)"):
        inverse_root(torch.ones(2, 3), 2)
    with pytest.raises(ValueError, match=r"a has shape \(3,\)"):
        inverse_root(torch.ones(3), 2)
    with pytest.raises(TypeError, match=r"a has dtype torch.int64"):
        inverse_root(torch.eye(2, dtype=torch.int64), 2)
    with pytest.raises(ValueError, match=r"previous has shape \(3, 3\): must be \(2, 2\)"):
        inverse_root(torch.eye(2), 2, previous=torch.eye(3))
