"""Which path `polar` takes, and that the path it takes keeps the error it was chosen for."""

import math

import pytest
import torch
from torch import Tensor

from linalg.matrices import gaussian, with_singular_values
from steepest.linalg import POLAR_METHODS, plan, polar, polar_plan, precision
from steepest.linalg.products import LEAST_SIDE as HALVES
from steepest.linalg.products import symmetric_multiply, symmetric_multiply_add
from steepest.linalg.quintics import MINIMAX, MINIMAX_ERROR, MINIMAX_FLOOR, MINIMAX_MARGIN, minimax_schedule


@pytest.fixture(autouse=True)
def same_precision_on_all_hardware(monkeypatch):
    monkeypatch.setattr(precision, "fast_bfloat16", lambda device: False)


def svdvals(u: Tensor) -> Tensor:
    return torch.linalg.svdvals(u.double())


def spectral(u: Tensor) -> float:
    return torch.linalg.matrix_norm(u.double(), 2).item()


def ill_conditioned(spectrum: str, shape: tuple[int, int]) -> Tensor:
    k = min(shape)
    values = {
        "1e-6": torch.logspace(0, -6, k),
        "spike": torch.tensor([1.0] + [1e-4] * (k - 1)),
        "rank 1": torch.tensor([1.0] + [0.0] * (k - 1)),
        "half": torch.tensor([1.0] * (k // 2) + [0.0] * (k - k // 2)),
        "gaussian": torch.linspace(0.3, 1.0, k),
    }[spectrum]
    return with_singular_values(shape, values, dtype=torch.float32)[0]


# --- the minimax polynomials -------------------------------------------------------------------------------


def test_every_minimax_polynomial_is_the_best_of_its_degree():
    """Chebyshev: the best of three coefficients is the one whose error alternates at four points."""
    low, high = MINIMAX_FLOOR, 1.0
    for a, b, c in MINIMAX[:6]:
        s = torch.logspace(math.log10(low), math.log10(high), 200_001, dtype=torch.float64)
        deviation = a * s + b * s**3 + c * s**5 - 1
        error = deviation.abs().max().item()
        touched = deviation[deviation.abs() > error * (1 - 1e-2) - 2e-6].sign()
        assert 1 + (touched.diff() != 0).sum() == 4
        low = a * low + b * low**3 + c * low**5
        high = 2 - low
        assert 1 - low == pytest.approx(error, rel=1e-2, abs=2e-6)


@pytest.mark.parametrize("steps", MINIMAX_ERROR)
def test_errors_of_minimax_are_as_stated(steps):
    s = torch.logspace(math.log10(MINIMAX_FLOOR), 0, 200_001, dtype=torch.float64) / MINIMAX_MARGIN
    for a, b, c in minimax_schedule(steps):
        s = a * s + b * s**3 + c * s**5
    error = (s - 1).abs().max().item()
    assert error <= MINIMAX_ERROR[steps]
    if error > 1e-4:
        assert error >= 0.9 * MINIMAX_ERROR[steps]


# --- the error asked for -----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [0.5, 0.33, 0.1, 0.026, 1e-3, 3e-5, 6e-6, 1e-7])
@pytest.mark.parametrize("shape", [(40, 40), (30, 120), (120, 30), (HALVES, 2 * HALVES)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_error_asked_for_is_kept(error, shape, dtype):
    if shape[0] == HALVES and (dtype == torch.float64 or error in (0.5, 0.1)):
        return  # one size with halved products is enough
    k = min(shape)
    spectra = [
        torch.logspace(0, math.log10(1.1 * MINIMAX_FLOOR * math.sqrt(k)), k),
        torch.tensor([1.0] + [1.05 * MINIMAX_FLOOR] * (k - 1)),
    ]
    for values in spectra:
        assert (values > MINIMAX_FLOOR * values.norm()).all()
        x, _ = with_singular_values(shape, values, dtype=dtype)
        u = polar(x, error=error)
        # what float32 can represent of an orthogonal matrix of this size
        assert (svdvals(u) - 1).abs().max() <= max(error, 3e-7 if dtype == torch.float32 else 0)


def test_a_smaller_error_takes_more_steps():
    x = torch.ones(8, 32)
    found = [len(polar_plan(x, error=e).schedule) for e in (0.95, 0.8, 0.5, 0.3, 0.02, 1e-5)]
    assert found == [2, 3, 4, 5, 6, 7]
    assert polar_plan(x, error=1e-6).exact
    assert len(polar_plan(x.double(), error=1e-11).schedule) == 7
    assert polar_plan(x.double(), error=1e-12).exact


def test_paths_are_chosen_by_shape_dtype_and_device(monkeypatch):
    for method in ("auto", "minimax"):
        assert polar_plan(torch.ones(10, 16), method).on_gram
        assert polar_plan(torch.ones(2, 16, 10), method).on_gram
        assert not polar_plan(torch.ones(10, 15), method).on_gram
        assert not polar_plan(torch.ones(10, 99).double(), method).on_gram
    assert polar_plan(torch.ones(10, 99).double(), "gram").on_gram
    half = torch.ones(10, 99, dtype=torch.bfloat16)
    assert polar_plan(half) == polar_plan(half.float())
    monkeypatch.setattr(precision, "fast_bfloat16", lambda device: True)
    for x in (half, half.float()):
        assert polar_plan(x).dtype == torch.bfloat16
        assert not polar_plan(x).on_gram
        assert polar_plan(x, error=0.2).dtype == torch.bfloat16
        assert polar_plan(x, error=0.1).dtype == torch.float32
        assert polar_plan(x, "minimax").dtype == torch.float32
        assert polar_plan(x, compute_dtype=torch.float32).on_gram
    assert polar_plan(half.double()).dtype == torch.float64


def test_bfloat16_keeps_the_error_it_is_chosen_for(monkeypatch):
    monkeypatch.setattr(precision, "fast_bfloat16", lambda device: True)
    for seed in range(4):
        values = torch.logspace(0, math.log10(1.1 * MINIMAX_FLOOR * math.sqrt(32)), 32)
        x, _ = with_singular_values((32, 80), values, seed=seed, dtype=torch.float32)
        assert polar_plan(x, error=0.2).dtype == torch.bfloat16
        assert (svdvals(polar(x, error=0.2)) - 1).abs().max() <= 0.2


def test_auto_is_newton_schulz():
    for shape in ((20, 24), (20, 60), (60, 20), (3, 20, 60)):
        x = gaussian(*shape)
        assert torch.equal(polar(x.double()), polar(x.double(), "newton_schulz"))
        assert (polar(x) - polar(x, "newton_schulz")).abs().max() < 1e-4
    assert torch.equal(polar(gaussian(20, 24)), polar(gaussian(20, 24), "newton_schulz"))


# --- halved products ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [HALVES - 1, HALVES, HALVES + 3, 1030])
@pytest.mark.parametrize("lead", [(), (2,)])
def test_halved_products_are_products(side, lead):
    x = gaussian(*lead, side, 40, dtype=torch.float64)
    expected = x @ x.mT
    found = symmetric_multiply(x, x.mT, torch.full_like(expected, float("nan")))
    assert (found - expected).abs().max() < 1e-12
    square = symmetric_multiply_add(found, found, found, torch.empty_like(found), beta=-0.5, alpha=0.25)
    assert (square - (0.25 * found @ found - 0.5 * found)).abs().max() < 1e-10
    if side >= HALVES:
        assert torch.equal(found, found.mT)
        assert torch.equal(square, square.mT)


@pytest.mark.parametrize("spectrum", ["1e-6", "spike", "rank 1", "half", "gaussian"])
@pytest.mark.parametrize(
    ("gram", "direct", "tolerance"),
    [("gram", "newton_schulz", 2e-3), ("gram_polar_express", "polar_express", 1.5e-2)],
)
def test_halved_products_do_not_magnify_rounding(spectrum, gram, direct, tolerance):
    """Mirroring a product of matrices that commute only roughly would end at 1e+9 for rank one."""
    for shape in ((HALVES, 600), (600, HALVES + 1)):
        x = ill_conditioned(spectrum, shape)
        exact = polar(x.double(), direct)
        assert spectral(polar(x, gram) - exact) < tolerance
        assert spectral(polar(x, direct) - exact) < tolerance


@pytest.mark.parametrize("spectrum", ["1e-6", "spike", "rank 1"])
@pytest.mark.parametrize("steps", [6, 12])
def test_many_steps_on_the_gram_matrix_stay_in_range(spectrum, steps):
    x = ill_conditioned(spectrum, (HALVES, 600))
    for method in ("gram", "gram_polar_express", "minimax"):
        assert spectral(polar(x, method, steps)) <= 1.3


@pytest.mark.parametrize("method", POLAR_METHODS)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_halved_products_at_any_scale(method, scale):
    x = ill_conditioned("gaussian", (HALVES, 600))
    assert (polar(x * scale, method) - polar(x, method)).abs().max() < 1e-4
    assert torch.equal(polar(torch.zeros(HALVES, 600), method), torch.zeros(HALVES, 600))


# --- stacks in parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", POLAR_METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(12, 14), (12, 40), (40, 12)])
def test_stacks_are_computed_in_parts(monkeypatch, method, dtype, shape):
    x = gaussian(7, *shape).to(dtype)
    before, whole = x.clone(), polar(x, method)
    monkeypatch.setattr(plan, "_CPU_ENTRIES", 1)
    assert polar_plan(x, method).chunk == 1
    one_by_one = polar(x, method)
    monkeypatch.setattr(plan, "_CPU_ENTRIES", 1500)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert 1 <= polar_plan(x, method).chunk < 7
    in_parts = polar(x.mT, method).mT if shape[0] == 12 else polar(x, method)
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-4
    assert (one_by_one.double() - whole.double()).abs().max() <= tolerance
    assert (in_parts.double() - whole.double()).abs().max() <= tolerance
    assert one_by_one.dtype == dtype
    assert torch.equal(x, before)


def test_buffers_are_bounded():
    x = torch.empty(64, 512, 2048, device="meta")
    assert polar_plan(x).chunk == 64  # 2^28 entries elsewhere than on a CPU
    cpu = polar_plan(torch.empty(1).expand(64, 512, 2048))
    assert cpu.chunk * (4 * 512**2 + 512 * 2048) <= 2**22 * torch.get_num_threads()
    assert polar_plan(torch.empty(1).expand(1, 10**4, 10**4)).chunk == 1


# --- compiled ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 20, 24), (HALVES, 600)])
def test_iterations_compile_without_a_break(shape):
    x = gaussian(*shape)
    compiled = torch.compile(
        lambda x: polar(x, compute_dtype=torch.float32), backend="eager", fullgraph=True, dynamic=False
    )
    assert (compiled(x) - polar(x)).abs().max() < 1e-4
