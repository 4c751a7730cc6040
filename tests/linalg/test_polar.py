import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from linalg.matrices import gaussian, with_singular_values
from steepest.linalg import POLAR_METHODS, check_polar, orthogonality_error, polar, precision
from steepest.linalg.symmetric import LinAlgError

ITERATIONS = [method for method in POLAR_METHODS if method != "svd"]
FOR_BFLOAT16 = [method for method in ITERATIONS if method != "minimax"]
# s / |X|_F from which the range holds, and the range, as the docstring promises
BOUND = {
    "auto": 2e-3,
    "newton_schulz": 2e-3,
    "gram": 2e-3,
    "minimax": 2e-3,
    "polar_express": 1e-3,
    "gram_polar_express": 1e-3,
}
RANGE = {
    "auto": (0.68, 1.21),
    "newton_schulz": (0.68, 1.21),
    "gram": (0.68, 1.21),
    "minimax": (0.97, 1.03),
    "polar_express": (0.85, 1.15),
    "gram_polar_express": (0.85, 1.15),
}
SLOPE = {"minimax": 713, "polar_express": 968, "gram_polar_express": 968}  # all others: 3.4445^5 = 485
SHAPES = [(48, 48), (24, 96), (96, 24), (40, 50), (1, 17), (17, 1), (1, 1), (2, 300)]

probe_hardware = precision.fast_bfloat16


@pytest.fixture(scope="module", autouse=True)
def same_precision_on_all_hardware():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "fast_bfloat16", lambda device: False)
        yield


def svdvals(u: Tensor) -> Tensor:
    return torch.linalg.svdvals(u.double())


def spectral(u: Tensor) -> float:
    return torch.linalg.matrix_norm(u.double(), 2).max().item()


def rank_tolerance(m: int, n: int, dtype: torch.dtype) -> float:
    return 4 * math.sqrt(max(m, n)) * torch.finfo(dtype).eps


# --- what is promised of the singular values ---------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("method", "dtype"),
    [
        *((method, dtype) for method in ITERATIONS for dtype in (torch.float64, torch.float32)),
        *((method, torch.bfloat16) for method in FOR_BFLOAT16),
    ],
)
def test_values_above_the_bound_end_in_the_range(method, shape, dtype):
    k = min(shape)
    values = torch.logspace(0, math.log10(1.2 * BOUND[method] * math.sqrt(k)), k)
    assert (values > BOUND[method] * values.norm()).all()
    x, u = with_singular_values(shape, values)
    low, high = RANGE[method]
    slack = 0.05 if dtype == torch.bfloat16 else 0.0
    result = polar(x.to(torch.float32 if dtype == torch.bfloat16 else dtype), method, compute_dtype=dtype)
    s = svdvals(result)
    assert s.min() >= low - slack
    assert s.max() <= high + slack
    if dtype != torch.bfloat16:  # whose rounding turns the vectors of small values
        # the singular vectors are those of X: its inner product with msign(X) is the sum of the values
        assert (result.double() * u).sum().item() == pytest.approx(s.sum().item(), rel=1e-2)


@pytest.mark.parametrize("method", POLAR_METHODS)
@pytest.mark.parametrize("shape", SHAPES)
def test_gaussian_matrices_stay_in_the_common_range(method, shape):
    s = svdvals(polar(gaussian(*shape), method))
    assert s.max() <= 1.3
    if shape != (48, 48):  # a square gaussian matrix has values below the bound
        assert s.min() >= 0.6


@pytest.mark.parametrize("method", ITERATIONS)
@pytest.mark.parametrize("shape", [(48, 48), (24, 96), (96, 24)])
def test_condition_1e6_is_lifted_as_far_as_the_slope_allows(method, shape):
    slope = SLOPE.get(method, 484)
    values = torch.logspace(0, -6, min(shape))
    x, _ = with_singular_values(shape, values)
    result = polar(x, method)
    left = torch.linalg.svd(x, full_matrices=False)
    lifted = torch.einsum("ik,ij,jk->k", left.U, result, left.Vh.T)
    relative = values.double() / values.double().norm()
    low, high = RANGE[method]
    above = relative >= BOUND[method]
    assert 0 < above.sum() < len(values)
    assert (lifted[above] >= low).all()
    assert (lifted <= high).all()
    faint = relative < 1e-4
    assert torch.allclose(lifted[faint], slope * relative[faint], rtol=5e-2, atol=1e-9)
    assert (polar(x.float(), method).double() - result).abs().max() < 0.02


@pytest.mark.parametrize("shape", [(48, 48), (24, 96), (96, 24)])
def test_svd_lifts_condition_1e6_completely(shape):
    x, u = with_singular_values(shape, torch.logspace(0, -6, min(shape)))
    assert spectral(polar(x, "svd") - u) < 1e-9
    assert orthogonality_error(polar(x, "svd")) < 1e-12
    # float32 input: condition 1e4 is well inside what its rounding leaves of the matrix
    x, u = with_singular_values(shape, torch.logspace(0, -4, min(shape)), dtype=torch.float32)
    assert orthogonality_error(polar(x, "svd")) < 1e-5
    assert spectral(polar(x, "svd") - u) < 1e-2
    assert spectral(polar(x, "svd") - polar(x.double(), "svd")) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_svd_treats_values_below_its_tolerance_as_zero(dtype):
    tolerance = rank_tolerance(64, 32, dtype)
    values = torch.tensor([1.0, 0.5, 1e-2, 4 * tolerance, tolerance / 8, tolerance / 8])
    x, _ = with_singular_values((64, 32), values, dtype=dtype)
    s = svdvals(polar(x, "svd"))
    assert torch.allclose(s[:4], torch.ones(4, dtype=torch.float64), atol=1e-2)
    assert s[4:].max() < 1e-2


@pytest.mark.parametrize("method", POLAR_METHODS)
@pytest.mark.parametrize("shape", [(48, 48), (24, 96), (96, 24)])
@pytest.mark.parametrize("rank", [1, 5])
def test_rank_deficient(method, shape, rank):
    values = torch.cat([torch.linspace(1, 0.1, rank), torch.zeros(min(shape) - rank)])
    x, u = with_singular_values(shape, values, dtype=torch.float32)
    result = polar(x, method)
    s = svdvals(result)
    assert s[rank:].max() < 1e-3
    if method == "svd":
        assert spectral(result - u) < 1e-5
    else:
        low, high = RANGE[method]
        assert low <= s[rank - 1]
        assert s[0] <= high
    assert orthogonality_error(result, rank=rank) <= 0.35


@pytest.mark.parametrize("method", FOR_BFLOAT16)
def test_bfloat16_rounding_is_lifted_where_there_was_nothing(method):
    x, _ = with_singular_values((24, 96), torch.tensor([1.0, 0.7, 0.4, 0.2]), dtype=torch.float32)
    s = svdvals(polar(x, method, compute_dtype=torch.bfloat16))
    assert s[3] >= 0.6
    assert s[0] <= 1.3
    assert 0.1 <= s[4:].max() <= 0.7


def test_svd_equals_the_polar_factor():
    for shape in SHAPES:
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
            x, u = with_singular_values(shape, torch.linspace(1, 0.1, min(shape)), dtype=dtype)
            assert spectral(polar(x, "svd") - u) < tolerance


# --- parity ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 5, 8])
def test_newton_schulz_is_the_iteration_of_torch_optim_muon(monkeypatch, shape, steps):
    """One step of torch's Muon from W = 0 with lr = 1 is minus the polar factor, times its shape scale."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self)
    g = gaussian(*shape, dtype=torch.float64, seed=3)
    w = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    w.grad = g.clone()
    torch.optim.Muon([w], lr=1.0, weight_decay=0.0, momentum=0.0, nesterov=False, ns_steps=steps).step()
    expected = -w.detach() / math.sqrt(max(1.0, shape[0] / shape[1]))
    assert (polar(g, steps=steps) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 3, 5, 7, 9])
def test_polynomials_act_on_the_singular_values(shape, steps):
    newton_schulz = [(3.4445, -4.7750, 2.0315)] * steps
    polar_express = [
        (8.1566, -22.4833, 15.8788),
        (4.0429, -2.8089, 0.5000),
        (3.8917, -2.7725, 0.5061),
        (3.2858, -2.3681, 0.4645),
    ][:steps] + [(2.3465, -1.7098, 0.4232)] * (steps - 4)
    x = gaussian(*shape, dtype=torch.float64)
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    for methods, schedule, margin in (
        (("newton_schulz", "gram"), newton_schulz, 1.0),
        (("polar_express", "gram_polar_express"), polar_express, 1.02),
    ):
        t = s / (margin * s.norm())
        for a, b, c in schedule:
            t = a * t + b * t**3 + c * t**5
        for method in methods:
            assert (polar(x, method, steps) - (u * t) @ vh).abs().max() < 1e-9


@pytest.mark.parametrize("spectrum", ["gaussian", "1e-2", "1e-6", "spike"])
@pytest.mark.parametrize("shape", [(24, 96), (96, 24), (16, 1000), (400, 12)])
@pytest.mark.parametrize(
    ("gram", "direct", "tolerance"),
    [("gram", "newton_schulz", 5e-3), ("gram_polar_express", "polar_express", 1.5e-2)],
)
def test_gram_in_float32_agrees_with_the_direct_iteration(spectrum, shape, gram, direct, tolerance):
    k = min(shape)
    if spectrum == "gaussian":
        x = gaussian(*shape)
    else:
        values = (
            torch.tensor([1.0] + [1e-4] * (k - 1))
            if spectrum == "spike"
            else torch.logspace(0, math.log10(float(spectrum)), k)
        )
        x, _ = with_singular_values(shape, values, dtype=torch.float32)
    assert spectral(polar(x, gram) - polar(x.double(), direct)) < tolerance


@pytest.mark.parametrize("steps", [7, 12])
def test_gram_restarts_before_rounding_is_magnified(steps):
    """Without a new Gram matrix, seven steps in float32 already diverge on this spectrum."""
    for seed in range(4):
        x, _ = with_singular_values((64, 200), torch.logspace(0, -6, 64), seed=seed, dtype=torch.float32)
        assert spectral(polar(x, "gram", steps)) <= 1.3
        assert spectral(polar(x, "gram_polar_express", steps)) <= 1.3


@pytest.mark.parametrize("method", ["gram", "gram_polar_express"])
def test_gram_is_the_direct_iteration_for_nearly_square_matrices(method):
    x = gaussian(20, 30)
    direct = {"gram": "newton_schulz", "gram_polar_express": "polar_express"}[method]
    assert torch.equal(polar(x, method), polar(x, direct))
    assert not torch.equal(polar(gaussian(20, 31), method), polar(gaussian(20, 31), direct))


# --- scale, zeros, batches, dtypes -------------------------------------------------------------------------


@pytest.mark.parametrize("method", POLAR_METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_scale_does_not_matter(method, dtype):
    x = gaussian(12, 40).to(dtype)
    expected = polar(x, method)
    for power in (-100, -66, 66, 100) if dtype != torch.float64 else (-1000, -66, 100, 1000):
        assert torch.equal(polar(x * 2.0**power, method), expected)
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-5
    for scale in (1e-20, 1e-30, 1e30):
        # relative to the scaled input: in bfloat16 the multiplication itself rounds
        scaled = x * scale
        reference = polar((scaled.double() / scale).to(dtype), method)
        assert (polar(scaled, method) - reference).abs().max() <= tolerance


@pytest.mark.parametrize(
    ("method", "compute_dtype"),
    [*((m, torch.float32) for m in POLAR_METHODS), *((m, torch.bfloat16) for m in FOR_BFLOAT16)],
)
def test_extreme_scales_keep_the_range(method, compute_dtype):
    x = gaussian(12, 40)
    for scale in (1e-38, 1e-20, 1e30, 5e37):
        s = svdvals(polar(x * scale, method, compute_dtype=compute_dtype))
        assert s.min() >= 0.6
        assert s.max() <= 1.3
    assert svdvals(polar(torch.full((3, 5), torch.finfo(torch.float32).max), method))[0] >= 0.6


@pytest.mark.parametrize("method", POLAR_METHODS)
@pytest.mark.parametrize("shape", [(5, 3), (3, 20), (20, 3), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_zero_slices_give_zero(method, shape, dtype):
    assert torch.equal(polar(torch.zeros(shape, dtype=dtype), method), torch.zeros(shape, dtype=dtype))
    x = gaussian(3, *shape).to(dtype)
    x[1] = 0
    result = polar(x, method)
    assert result.isfinite().all()
    assert (result[1] == 0).all()
    assert (result[0] != 0).any()
    assert torch.allclose(result[2], polar(x[2], method), atol=1e-2 if dtype.itemsize == 2 else 1e-4)


@pytest.mark.parametrize("method", POLAR_METHODS)
@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6), (1, 9), (9, 1)])
def test_batched_equals_looped(method, shape):
    x = gaussian(2, 3, *shape, dtype=torch.float64) * torch.logspace(-20, 20, 6, dtype=torch.float64).view(
        2, 3, 1, 1
    )
    looped = torch.stack([torch.stack([polar(a, method) for a in row]) for row in x])
    assert (polar(x, method) - looped).abs().max() < 1e-10
    assert (polar(x.float(), method) - looped).abs().max() < 5e-2
    assert torch.equal(polar(x[:1, :1], method)[0, 0], polar(x[0, 0], method))


@pytest.mark.parametrize("method", POLAR_METHODS)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 4, 3), (2, 4, 0), (0, 0)])
def test_empty(method, shape):
    result = polar(torch.zeros(shape), method)
    assert result.shape == shape
    assert orthogonality_error(result).shape == shape[:-2]


@pytest.mark.parametrize("method", POLAR_METHODS)
def test_nonfinite_entries_stay_in_their_slice(method):
    for bad in (float("nan"), float("inf"), -float("inf")):
        for dtype in (torch.float32, torch.float64):
            x = gaussian(3, 4, 12, dtype=dtype)
            expected = polar(x, method)
            x[1, 2, 3] = bad
            result = polar(x, method)
            assert result[1].isnan().all()
            assert torch.equal(result[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("method", POLAR_METHODS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtype_is_kept_and_input_is_not_changed(method, dtype):
    x = gaussian(12, 4).T.to(dtype).requires_grad_()
    before = x.detach().clone()
    result = polar(x, method)
    assert result.dtype == dtype
    assert result.shape == x.shape
    assert not result.requires_grad
    assert torch.equal(x, before)
    assert orthogonality_error(result, rank=4) < 0.35


@pytest.mark.parametrize("method", ITERATIONS)
@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 20), (2, 20, 3)])
def test_iterations_never_read_a_value_back(method, shape):
    """Meta tensors have no values: any `.item()` or branch on data raises."""
    assert polar(torch.empty(shape, device="meta"), method).shape == shape


def test_non_contiguous_input():
    x = gaussian(30, 8)
    for method in POLAR_METHODS:
        assert torch.allclose(polar(x.T, method), polar(x.T.contiguous(), method), atol=1e-4)
        assert torch.allclose(polar(x.T, method), polar(x, method).T, atol=1e-4)
        assert torch.allclose(polar(x[::3, ::2], method), polar(x[::3, ::2].contiguous(), method), atol=1e-4)


# --- which dtype an iteration computes in ------------------------------------------------------------------


def test_bfloat16_is_used_where_it_is_native(monkeypatch):
    x = gaussian(8, 30)
    monkeypatch.setattr(precision, "fast_bfloat16", lambda device: True)
    for method in ("auto", "newton_schulz", "polar_express"):
        assert torch.equal(polar(x, method), polar(x, method, compute_dtype=torch.bfloat16))
    for method in ("gram", "gram_polar_express", "minimax"):
        assert torch.equal(polar(x, method), polar(x, method, compute_dtype=torch.float32))
    wide = x.double()
    assert torch.equal(polar(wide), polar(wide, compute_dtype=torch.float64))
    monkeypatch.undo()
    assert torch.equal(polar(x), polar(x, compute_dtype=torch.float32))


def test_native_bfloat16_is_asked_of_the_hardware(monkeypatch):
    def ask(device: str) -> bool:
        probe_hardware.cache_clear()
        return probe_hardware(torch.device(device))

    try:
        for avx, amx in ((False, False), (True, False), (False, True)):
            monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx=avx: avx)
            monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
            assert ask("cpu") is (avx or amx)
        monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
        monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
        assert ask("cpu") is False
        for capability, expected in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
            monkeypatch.setattr(
                torch.cuda, "get_device_capability", lambda device, capability=capability: capability
            )
            assert ask("cuda:0") is expected
        assert ask("meta") is False
    finally:
        probe_hardware.cache_clear()


# --- decompositions that fail ------------------------------------------------------------------------------


def broken(*args, **kwargs):
    raise LinAlgError("did not converge")


def test_svd_falls_back_to_the_gram_matrix(monkeypatch):
    x, u = with_singular_values((10, 24), torch.linspace(1, 0.1, 10))
    monkeypatch.setattr(torch.linalg, "svd", broken)
    assert spectral(polar(x, "svd") - u) < 1e-12
    assert spectral(polar(x.T, "svd") - u.T) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_svd_falls_back_to_jitter(monkeypatch, dtype):
    eigh, calls = torch.linalg.eigh, []

    def fails_without_jitter(a):
        calls.append(a)
        return eigh(a) if len(calls) > 2 else broken()

    monkeypatch.setattr(torch.linalg, "svd", broken)
    monkeypatch.setattr(torch.linalg, "eigh", fails_without_jitter)
    x, u = with_singular_values((10, 24), torch.linspace(1, 0.1, 10), dtype=dtype)
    assert spectral(polar(x, "svd") - u) < (1e-10 if dtype == torch.float64 else 1e-6)
    assert 0 < (calls[2] - calls[1]).abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_svd_falls_back_to_the_iteration(monkeypatch, dtype):
    monkeypatch.setattr(torch.linalg, "svd", broken)
    monkeypatch.setattr(torch.linalg, "eigh", broken)
    x = gaussian(2, 10, 24, dtype=dtype)
    x[1] = 0
    result = polar(x, "svd")
    assert torch.allclose(result, polar(x.double()).to(dtype), atol=1e-6)
    assert (result[1] == 0).all()


def test_one_unsolvable_slice_does_not_touch_the_others(monkeypatch):
    eigh = torch.linalg.eigh
    x = gaussian(3, 6, 20)
    expected = polar(x, "svd")
    x[1, :, 0] = 100.0  # close to rank one: all entries of its Gram matrix are about equal
    marked = polar(x, "svd")

    def picky(a):
        batch = a if a.ndim == 3 else a[None]
        return broken() if any((m / m.max()).min() > 0.9 for m in batch) else eigh(a)

    monkeypatch.setattr(torch.linalg, "eigh", picky)
    result = polar(x, "svd")
    assert torch.allclose(result[[0, 2]], expected[[0, 2]], atol=1e-6)
    assert not torch.allclose(result[1], marked[1], atol=1e-3)
    assert svdvals(result[1])[0] >= 0.6


# --- the diagnostic ----------------------------------------------------------------------------------------


def test_orthogonality_error():
    assert orthogonality_error(torch.diag(torch.tensor([1.0, 0.75, 0.0]))).item() == pytest.approx(0.25)
    assert orthogonality_error(torch.diag(torch.tensor([1.5, 0.75, 0.0])), rank=3).item() == 1.0
    assert orthogonality_error(torch.zeros(2, 3, 4)).tolist() == [0.0, 0.0]
    assert orthogonality_error(torch.zeros(3, 4), rank=2).item() == 0.0
    assert orthogonality_error(torch.full((1, 4), 1.0)).item() == pytest.approx(1.0)
    batch = torch.stack([torch.eye(3), 2 * torch.eye(3), torch.zeros(3, 3)])
    assert orthogonality_error(batch).tolist() == [0.0, 1.0, 0.0]
    x = gaussian(6, 20)
    assert orthogonality_error(polar(x, "svd")) < 1e-6 < orthogonality_error(polar(x)) < 0.35


# --- errors ------------------------------------------------------------------------------------------------


def test_unknown_method_names_the_closest():
    with pytest.raises(ValueError, match=r"method='newton_shulz'.*svd.*did you mean 'newton_schulz'"):
        polar(torch.eye(2), "newton_shulz")
    with pytest.raises(ValueError, match=r"method='qqq'.*must be one of auto, newton_schulz, [a-z_, ]*$"):
        check_polar("qqq")


@pytest.mark.parametrize("steps", [0, -1, 2.5, True, "5"])
@pytest.mark.parametrize("method", POLAR_METHODS)
def test_bad_steps(steps, method):
    with pytest.raises(ValueError, match=rf"steps={steps!r}.*>= 1"):
        polar(torch.eye(2), method, steps)


def test_bad_input():
    with pytest.raises(TypeError, match=r"x has dtype torch.int64"):
        polar(torch.eye(2, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"x has dtype torch.complex64"):
        polar(torch.eye(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"x has shape \(3,\)"):
        polar(torch.ones(3))
    with pytest.raises(ValueError, match=r"compute_dtype=torch.int32"):
        polar(torch.eye(2), compute_dtype=torch.int32)
    with pytest.raises(ValueError, match=r"compute_dtype=torch.bfloat16 is too coarse for method='minimax'"):
        polar(torch.eye(2), "minimax", compute_dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"too coarse for method='auto' with error=0.01"):
        polar(torch.eye(2), error=0.01, compute_dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"error=0.01 needs method='auto'.*got method='svd'"):
        polar(torch.eye(2), "svd", error=0.01)
    wrong: tuple[Any, ...] = (0, 1, -0.1, True, "0.1", float("nan"))
    for error in wrong:
        with pytest.raises(ValueError, match=rf"error={error!r} is out of range: must be None or a number"):
            polar(torch.eye(2), error=error)


# --- properties --------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    lead=st.lists(st.integers(1, 3), max_size=2),
    m=st.integers(1, 24),
    n=st.integers(1, 24),
    rank=st.integers(0, 24),
    power=st.integers(-90, 90),
    method=st.sampled_from(POLAR_METHODS),
    seed=st.integers(0, 2**20),
)
def test_any_shape(lead, m, n, rank, power, method, seed):
    factors = (
        gaussian(*lead, m, min(rank, m, n), seed=seed),
        gaussian(*lead, min(rank, m, n), n, seed=seed + 1),
    )
    x = factors[0] @ factors[1]
    u = polar(x, method)
    assert u.shape == x.shape
    assert u.isfinite().all()
    assert spectral(u) <= 1.3
    # a descent direction: <X, U> between 0.6 of its best value on the values that are lifted and 1.3 of it
    inner = (x.double() * u.double()).sum((-2, -1))
    best = svdvals(x).sum(-1)
    assert (inner >= 0.6 * best - 0.05 * best).all()
    assert (inner <= 1.3 * best + 1e-12).all()
    assert torch.equal(polar(x * 2.0**power, method), u)
    assert torch.allclose(polar(x.mT, method), u.mT, atol=2e-2)
