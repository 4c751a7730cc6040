"""Which recipes fused kernels understand, and as what."""

from dataclasses import replace

import pytest
import torch
from torch import Size
from torch.nn import Parameter

from steepest import (
    ANDI,
    EMA,
    Adagrad,
    AdamSANIA,
    AdamW,
    Diagonal,
    EnergyFloor,
    Equilibration,
    Frobenius,
    HeavyBall,
    Max,
    Muon,
    NormalizedSGD,
    RMSMatched,
    SignSGD,
    UnitLMO,
)
from steepest.kernels.plans import Averaging, Elementwise, Equilibrated, Normalized, SquareStatistic, buffers
from steepest.kernels.plans import plan_of as plan
from steepest.rule import Rule

SHAPE = Size((32, 48))


def rule_of(optimizer_class, **settings):
    optimizer = optimizer_class([Parameter(torch.zeros(SHAPE))], **settings)
    return optimizer.recipe(optimizer.param_groups[0]).for_shape(SHAPE)


def test_named_methods():
    ema = Averaging("ema", "exp_avg", corrected=True)
    assert plan(rule_of(AdamW), SHAPE) == Elementwise(
        ema, SquareStatistic("exp_avg_sq", 0.5, "outside", True), False, 1.0, "decoupled"
    )
    assert plan(rule_of(AdamSANIA, lr=1e-3), SHAPE) == Elementwise(
        ema, SquareStatistic("exp_avg_sq", 1, "outside", True), False, 1.0, "decoupled"
    )
    assert plan(rule_of(Adagrad), SHAPE) == Elementwise(
        None, SquareStatistic("sum", 0.5, "outside", False), False, 1.0, "l2"
    )
    sign = plan(rule_of(SignSGD), SHAPE)
    assert isinstance(sign, Elementwise)
    assert sign.sign
    assert sign.square is None
    assert isinstance(plan(rule_of(NormalizedSGD, lr=0.1, momentum=0.9), SHAPE), Normalized)
    assert plan(rule_of(Muon), SHAPE) is None


def test_andi_takes_its_shape_into_account():
    found = plan(rule_of(ANDI, mixing="lateral", shift=50), SHAPE)
    averaging = Averaging("heavy_ball", "momentum_buffer", nesterov=True)
    assert found == Equilibrated(averaging, "both", 2, "decoupled")
    thin = rule_of(ANDI, threshold=40)
    assert plan(thin, SHAPE) == Equilibrated(averaging, "none", 0, "decoupled")
    assert found is not None
    assert buffers(found) == ("momentum_buffer",)


@pytest.mark.parametrize(
    "composition",
    [
        Rule(norm=Max(), preconditioner=Equilibration()),
        Rule(step=RMSMatched()),
        Rule(norm=Frobenius(), preconditioner=Diagonal(), step=UnitLMO()),
        Rule(momentum=HeavyBall(), step=EnergyFloor()),
        Rule(norm=Max(), momentum=EMA(where="after")),
        Rule(norm=Max(), average=True),
        Rule(norm=Max(), constraint="hyperball"),
    ],
)
def test_what_has_no_plan(composition):
    assert plan(composition, SHAPE) is None


def test_numbers_of_the_groups_are_no_part_of_a_plan():
    """Equal plans batch in one call, whatever the coefficients' defaults were."""
    one = Rule(norm=Max(), preconditioner=Diagonal(beta=0.9), momentum=EMA(0.8), step=UnitLMO("unit_rms"))
    other = replace(one, preconditioner=Diagonal(beta=0.99, eps=1e-3), momentum=EMA(0.9))
    assert plan(one, SHAPE) == plan(other, SHAPE)
    assert plan(one, SHAPE) != plan(one, Size((64, 48)))
