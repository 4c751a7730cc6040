"""Every norm is a norm, its dual is its dual, and its oracle attains it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from steepest import ColNorm, Frobenius, Max, RowNorm, Spectral
from steepest.numeric import inner

NORMS = [Frobenius(), Max(), Spectral("svd"), RowNorm(), ColNorm()]
each_norm = pytest.mark.parametrize("norm", NORMS, ids=lambda norm: type(norm).__name__)

sizes = st.integers(1, 6)
entries = st.one_of(
    st.just(0.0),
    st.builds(
        lambda sign, digits, exponent: sign * digits * 10.0**exponent,
        st.sampled_from([-1, 1]),
        st.floats(1, 10),
        st.integers(-9, 9),
    ),
)


@st.composite
def matrices(draw, count: int = 1) -> list[Tensor]:
    """Float64 matrices of one shape, with zeros and entries up to eighteen orders of magnitude apart."""
    m, n = draw(sizes), draw(sizes)
    flat = st.lists(entries, min_size=m * n, max_size=m * n)
    return [torch.tensor(draw(flat), dtype=torch.float64).reshape(m, n) for _ in range(count)]


@each_norm
@given(data=st.data())
def test_oracle_attains_the_dual_on_the_unit_sphere(norm, data):
    [g] = data.draw(matrices())
    u, dual = norm.direction(g), norm.dual(g)
    assert torch.equal(norm.lmo(g), -u)
    assert u.dtype == dual.dtype == torch.float64
    assert dual.shape == norm.value(g).shape == (1, 1)
    if not g.any():
        assert not u.any()
        assert dual == norm.value(g) == 0
        return
    torch.testing.assert_close(inner(g, u), dual, rtol=1e-9, atol=0)
    torch.testing.assert_close(norm.value(u), torch.ones(1, 1).double(), rtol=1e-9, atol=0)
    sharp = dual * u
    torch.testing.assert_close(inner(g, sharp), dual**2, rtol=1e-9, atol=0)
    torch.testing.assert_close(norm.value(sharp), dual, rtol=1e-9, atol=0)


@each_norm
@given(data=st.data(), factor=entries)
def test_value_and_dual_are_norms_dual_to_each_other(norm, data, factor):
    x, y = data.draw(matrices(2))
    for size in (norm.value, norm.dual):
        assert size(x) >= 0
        assert bool(size(x) == 0) == (not x.any())
        assert size(x + y) <= (size(x) + size(y)) * (1 + 1e-12)
        torch.testing.assert_close(size(factor * x), abs(factor) * size(x), rtol=1e-12, atol=0)
    assert inner(x, y) <= norm.dual(x) * norm.value(y) * (1 + 1e-12)


@each_norm
@given(data=st.data())
def test_leading_dimensions_are_a_batch(norm, data):
    slices = data.draw(matrices(6))
    stack = torch.stack(slices).reshape(2, 3, *slices[0].shape)
    for part in (norm.value, norm.dual, norm.direction):
        looped = torch.stack([part(g) for g in slices])
        batched = part(stack)
        assert batched.shape[:2] == (2, 3)
        torch.testing.assert_close(batched.reshape(looped.shape), looped, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30])
@pytest.mark.parametrize(
    "norm", [*NORMS, Spectral(), Spectral("polar_express"), Spectral("gram")], ids=lambda norm: repr(norm)
)
def test_float32_at_any_scale(norm, scale):
    g = torch.randn(3, 7, 12, generator=torch.Generator().manual_seed(0))
    scaled = g * scale
    # An iteration in bfloat16 rounds the scaled matrix differently.
    tolerance = 0.05 if isinstance(norm, Spectral) and norm.orthogonalizer != "svd" else 1e-5
    torch.testing.assert_close(norm.direction(scaled), norm.direction(g), rtol=0, atol=tolerance)
    for size in (norm.value, norm.dual):
        torch.testing.assert_close(size(scaled).double(), size(g).double() * scale, rtol=1e-5, atol=0)


def test_hand_values():
    g = torch.tensor([[3.0, -4.0], [0.0, 12.0]]).double()
    values = {type(norm).__name__: (norm.value(g).item(), norm.dual(g).item()) for norm in NORMS}
    assert values["Frobenius"] == pytest.approx((13, 13))
    assert values["Max"] == (12, 19)
    assert values["RowNorm"] == pytest.approx((12, 17))
    assert values["ColNorm"] == pytest.approx((160**0.5, 3 + 160**0.5))
    largest, smallest = values["Spectral"][0], 36 / values["Spectral"][0]  # their product is |det G|
    assert largest**2 + smallest**2 == pytest.approx(169)
    assert values["Spectral"][1] == pytest.approx(largest + smallest)


def test_norms_are_values():
    assert Spectral() == Spectral("auto", 5) != Spectral("svd")
    assert RowNorm() != ColNorm()
    assert len({*NORMS, *NORMS}) == len(NORMS)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"orthogonalizer": "qr"}, r"orthogonalizer must be one of .*'svd'.* got 'qr'"),
        ({"steps": 0}, r"steps=0 .* integer >= 1"),
        ({"steps": 2.5}, r"steps=2\.5 .* integer >= 1"),
    ],
)
def test_bad_orthogonalizers(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Spectral(**kwargs)
