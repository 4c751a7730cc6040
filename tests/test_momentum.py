"""Averages against sequences worked out by hand."""

from typing import Any

import pytest
import torch

from steepest import EMA, HeavyBall, Max, NoMomentum, Rule

X = [1.0, 2.0, 4.0]


def sequence(momentum, numbers=X, coefficients=(0.5, 0.5, 0.5), step=lambda t: t) -> list[float]:
    """What the part returns for a sequence of 1 x 1 matrices."""
    state = momentum.init(torch.zeros(1, 1, 1).double())
    averages = []
    for t, (x, b) in enumerate(zip(numbers, coefficients, strict=True), 1):
        given = torch.full((1, 1, 1), x).double()
        hypers: dict[str, Any] = {"momentum": b, "step": step(t)}
        averages.append(momentum(given, state, hypers).clone().item())
        assert given.item() == x
    return averages


@pytest.mark.parametrize(
    ("momentum", "expected"),
    [
        (NoMomentum(), X),
        (HeavyBall(), [1, 2.5, 5.25]),
        (HeavyBall(nesterov=True), [1.5, 3.25, 6.625]),
        (HeavyBall(start="gradient"), [1.5, 2.75, 5.375]),
        (HeavyBall(start="gradient", nesterov=True), [1.75, 3.375, 6.6875]),
        (EMA(), [0.5, 1.25, 2.625]),
        (EMA(nesterov=True), [0.75, 1.625, 3.3125]),
        (EMA(bias_correction=True), [1, 1.25 / 0.75, 3]),
        (EMA(bias_correction=True, nesterov=True), [1, 1.625 / 0.875, 3.3125 / 0.9375]),
    ],
    ids=repr,
)
def test_by_hand(momentum, expected):
    assert sequence(momentum) == pytest.approx(expected, rel=1e-15)
    counted_on_a_device = sequence(momentum, step=lambda t: torch.full((1, 1, 1), float(t)).double())
    assert counted_on_a_device == pytest.approx(expected, rel=1e-15)
    assert momentum.needs_step == (
        getattr(momentum, "bias_correction", False) or getattr(momentum, "start", "zero") == "gradient"
    )


@pytest.mark.parametrize("nesterov", [False, True])
def test_bias_correction_makes_a_mean(nesterov):
    """The mean of a constant is that constant, from the first step, whatever the coefficient."""
    constant = EMA(bias_correction=True, nesterov=nesterov)
    assert sequence(constant, [3.0] * 3, (0.99, 0.99, 0.99)) == pytest.approx([3.0] * 3, rel=1e-13)
    assert sequence(constant, coefficients=(0, 0, 0)) == X


def test_the_coefficient_is_read_at_every_step():
    assert sequence(HeavyBall(0.9), coefficients=(0.9, 0.5, 0.25)) == pytest.approx([1, 2.5, 4.625])
    assert sequence(EMA(0.9), coefficients=(0.5, 0.75, 0.0)) == pytest.approx([0.5, 0.875, 4])


@pytest.mark.parametrize(
    ("momentum", "expected"),
    [
        (EMA(0.5), [[1, -1], [1, 1], [-1, 1]]),  # sign of (1, -4)/2, (5, 2)/4, (-11, 6)/8
        (EMA(0.5, where="after"), [[0.5, -0.5], [0.75, 0.25], [-0.125, 0.625]]),
        (HeavyBall(0.5, where="after"), [[1, -1], [1.5, 0.5], [-0.25, 1.25]]),
    ],
    ids=repr,
)
def test_before_or_after_the_oracle(momentum, expected):
    rule = Rule(norm=Max(), momentum=momentum)
    state = rule.init(torch.zeros(1, 1, 2))
    for g, s in zip([[1.0, -4.0], [2.0, 3.0], [-4.0, 1.0]], expected, strict=True):
        update = rule.update(torch.tensor([[g]]), state, {"momentum": 0.5})
        assert update is not None
        assert update.direction[0, 0].tolist() == s


@pytest.mark.parametrize(
    ("kind", "kwargs", "message"),
    [
        (HeavyBall, {"where": "middle"}, "where must be 'before' or 'after' the oracle, got 'middle'"),
        (EMA, {"where": None}, "where must be 'before' or 'after' the oracle, got None"),
        (HeavyBall, {"start": "one"}, "start must be 'zero' or 'gradient', got 'one'"),
    ],
)
def test_bad_choices(kind, kwargs, message):
    with pytest.raises(ValueError, match=message):
        kind(**kwargs)
