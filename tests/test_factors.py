"""Statistics of outer products in units of their own: the same sum on every path, at every scale."""

from typing import Any

import pytest
import torch
from torch import Tensor

from steepest.preconditioners.factors import accumulate_, new_factor


def gradients(k: int, m: int, n: int, count: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(m)
    return [torch.randn(k, m, n, generator=generator) for _ in range(count)]


def collected(grads: list[Tensor], keep: Any, weight: Any) -> tuple[Tensor, Tensor]:
    factor, unit = new_factor(grads[0], len(grads[0]), size=grads[0].shape[1])
    for g in grads:
        accumulate_(factor, unit, g, keep, weight)
    return factor, unit


def expected(grads: list[Tensor], keep: float, weight: float) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for g in grads:
        total = keep * total + weight * g.double() @ g.double().mT
    return total


@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1.0, 1e9, 1e18])
@pytest.mark.parametrize(("k", "m", "n"), [(1, 5, 7), (3, 5, 7), (1, 300, 20), (2, 300, 9), (1, 1, 4)])
def test_factors_are_averages_of_outer_products(k, m, n, scale):
    grads = [g * scale for g in gradients(k, m, n)]
    factor, unit = collected(grads, 0.9, 0.1)
    assert torch.equal(factor, factor.mT) or (factor - factor.mT).abs().max() < 1e-5
    actual, wanted = factor.double() * unit.double() ** 2, expected(grads, 0.9, 0.1)
    assert (actual - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert (unit == 1).all() == (1e-6 < scale < 1e6)


@pytest.mark.parametrize(("k", "m"), [(1, 300), (3, 6)])
def test_coefficients_may_be_tensors(k, m):
    grads = gradients(k, m, 8)
    numbers, tensors = (collected(grads, *map(kind, (0.9, 0.1)))[0] for kind in (float, torch.tensor))
    torch.testing.assert_close(numbers, tensors, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("k", "m"), [(1, 300), (3, 6)])
@pytest.mark.parametrize(
    "scales", [[1, 1e12, 1, 1, 1, 1], [1e-12, 1e-12, 1, 1e-12, 1e-12, 1], [0, 0, 1e-9, 0, 1, 0]]
)
def test_scales_may_change(k, m, scales):
    grads = [g * scale for g, scale in zip(gradients(k, m, 9), scales, strict=True)]
    factor, unit = collected(grads, 0.9, 0.1)
    wanted = expected(grads, 0.9, 0.1)
    assert (factor.double() * unit.double() ** 2 - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_a_statistic_follows_gradients_that_fade():
    """From 1 to 1e-12 the average's old part is lost at 0.5^80, and the new one is exact to rounding."""
    g = gradients(1, 5, 7, 1)[0]
    factor, unit = collected([g] + [1e-12 * g] * 120, 0.5, 0.5)
    wanted = 1e-24 * (g.double() @ g.double().mT)
    torch.testing.assert_close(factor.double() * unit.double() ** 2, wanted, rtol=1e-4, atol=1e-30)


def test_gradients_that_are_not_finite_show():
    factor, unit = collected([torch.full((1, 3, 3), float("nan"))], 0.9, 0.1)
    assert not factor.isfinite().any()
    assert not unit.isfinite().any()
