"""The four axes: every composition against one plain restatement, and the classics as special cases."""

from typing import Any

import pytest
import torch

from optimizers.trajectories import CONV, MATRICES, assert_same, follow, gradients, start
from references import framework
from references.framework import Average, Geometry
from steepest import (
    ANDI,
    EMA,
    ColNorm,
    Diagonal,
    DualScaled,
    EnergyFloor,
    Equilibration,
    Frobenius,
    HeavyBall,
    Identity,
    Max,
    MuAdam,
    MuAdamSANIA,
    Muon,
    NoMomentum,
    NormalizedSGD,
    RMSMatched,
    RowNorm,
    SignSGD,
    Spectral,
    Steepest,
    UnitLMO,
)

NORMS: dict[str, Any] = {
    "frobenius": Frobenius(),
    "max": Max(),
    "spectral": Spectral("svd"),
    "row": RowNorm(),
    "col": ColNorm(),
}
GEOMETRIES: list[tuple[Geometry, Any]] = [
    (Geometry(), Identity()),
    (Geometry("diagonal"), Diagonal(0.5, 0.9, eps=1e-3)),
    (Geometry("diagonal", beta=None), Diagonal(0.5, None, eps=1e-3)),
    (
        Geometry("diagonal", power=1 / 3, placement="uncorrected"),
        Diagonal(1 / 3, 0.9, eps=1e-3, eps_placement="uncorrected"),
    ),
    (
        Geometry("diagonal", power=1.0, placement="inside"),
        Diagonal(1.0, 0.9, eps=1e-3, eps_placement="inside"),
    ),
    (Geometry("equilibration"), Equilibration(threshold=3, eps=1e-3)),
]
AVERAGES: list[tuple[Average, Any]] = [
    (Average(), NoMomentum()),
    (Average("sum"), HeavyBall(0.8)),
    (Average("sum", nesterov=True, after=True), HeavyBall(0.8, nesterov=True, where="after")),
    (Average("ema", nesterov=True), EMA(0.8, nesterov=True)),
    (Average("ema", corrected=True), EMA(0.8, bias_correction=True)),
    (Average("ema", corrected=True, nesterov=True), EMA(0.8, nesterov=True, bias_correction=True)),
    (Average("ema", after=True), EMA(0.8, where="after")),
]


@pytest.mark.parametrize("dual", [False, True], ids=["unit", "dual"])
@pytest.mark.parametrize("average", AVERAGES, ids=lambda pair: repr(pair[1]))
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda pair: repr(pair[1]))
@pytest.mark.parametrize("norm", NORMS)
def test_every_composition_is_the_framework(norm, geometry, average, dual):
    """Five norms x six geometries x seven kinds of momentum x both step lengths."""
    w0, grads = start((9, 14)), gradients((9, 14), 12)
    expected = framework.steepest(w0, grads, 0.01, norm, geometry[0], average[0], dual, weight_decay=0.1)
    actual = follow(
        Steepest,
        w0,
        grads,
        lr=0.01,
        norm=NORMS[norm],
        preconditioner=geometry[1],
        momentum=average[1],
        step=DualScaled() if dual else UnitLMO(),
        weight_decay=0.1,
        fused=False,
    )
    assert_same(actual, expected, 1e-11)


@pytest.mark.parametrize("shape", [*MATRICES, *CONV])
@pytest.mark.parametrize("norm", NORMS)
def test_shapes(norm, shape):
    w0, grads = start(shape), gradients(shape)
    geometry, average = GEOMETRIES[1], AVERAGES[4]
    expected = framework.steepest(
        w0, grads, 0.01, norm, geometry[0], average[0], dual=False, scale="spectral"
    )
    actual = follow(
        Steepest,
        w0,
        grads,
        lr=0.01,
        norm=NORMS[norm],
        preconditioner=geometry[1],
        momentum=average[1],
        step=UnitLMO("spectral"),
        fused=False,
    )
    assert_same(actual, expected, 1e-11)


@pytest.mark.parametrize("norm", NORMS)
def test_restated_oracles_attain_the_dual(norm):
    """<X, u(X)> = |X|* and |u(X)| = 1, in the restatement that everything above is compared with."""
    x = start((6, 9))
    u = framework.unit(x, norm)
    assert float((x * u).sum()) == pytest.approx(framework.dual_value(x, norm), rel=1e-13)
    assert framework.norm_value(u, norm) == pytest.approx(1, rel=1e-13)


# Classics of torch.optim


W0, GRADS = start((9, 14)), gradients((9, 14))


def composed(**kwargs) -> list[torch.Tensor]:
    return follow(Steepest, W0, GRADS, **kwargs)


def by_torch(optimizer, **kwargs) -> list[torch.Tensor]:
    return follow(optimizer, W0, GRADS, **kwargs, foreach=False)


def test_nothing_chosen_is_gradient_descent():
    assert_same(composed(lr=0.01), by_torch(torch.optim.SGD, lr=0.01))


@pytest.mark.parametrize("nesterov", [False, True])
def test_heavy_ball_is_torchs(nesterov):
    expected = by_torch(torch.optim.SGD, lr=0.01, momentum=0.8, nesterov=nesterov)
    assert_same(composed(lr=0.01, momentum=HeavyBall(0.8, nesterov=nesterov)), expected)


def test_root_of_the_mean_square_is_rmsprop():
    diagonal = Diagonal(0.5, 0.9, eps=1e-3, bias_correction=False)
    expected = by_torch(torch.optim.RMSprop, lr=0.01, alpha=0.9, eps=1e-3)
    assert_same(composed(lr=0.01, preconditioner=diagonal), expected)


def test_root_of_the_sum_is_adagrad():
    expected = by_torch(torch.optim.Adagrad, lr=0.1, eps=1e-3)
    assert_same(composed(lr=0.1, preconditioner=Diagonal(0.5, None, eps=1e-3)), expected)


def test_root_of_the_mean_square_with_momentum_is_adamw():
    expected = by_torch(torch.optim.AdamW, lr=0.01, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1)
    actual = composed(
        lr=0.01,
        preconditioner=Diagonal(0.5, 0.9, eps=1e-3),
        momentum=EMA(0.8, bias_correction=True),
        weight_decay=0.1,
    )
    assert_same(actual, expected)


# The named methods


def same_as(make, named: dict[str, Any], **composition) -> None:
    assert_same(composed(lr=0.02, weight_decay=0.1, **composition), follow(make, W0, GRADS, lr=0.02, **named))


def test_frobenius_unit_is_normalized_sgd():
    same_as(NormalizedSGD, {"momentum": 0.9, "weight_decay": 0.1}, momentum=HeavyBall(0.9), step=UnitLMO())


def test_max_unit_is_sign_sgd():
    same_as(SignSGD, {"momentum": 0.9, "weight_decay": 0.1}, norm=Max(), momentum=EMA(0.9), step=UnitLMO())


@pytest.mark.parametrize("scale", ["original", "match_rms_adamw", "spectral", "unit_rms", None])
def test_spectral_unit_is_muon(scale):
    """MuAdam's geometry set to the identity."""
    same_as(
        Muon,
        {"momentum": 0.9, "scale": scale, "weight_decay": 0.1},
        norm=Spectral(),
        momentum=EMA(0.9, nesterov=True),
        step=UnitLMO(scale),
    )


@pytest.mark.parametrize(
    ("make", "diagonal"),
    [
        (MuAdam, Diagonal(0.5, 0.95, eps=1e-3, eps_placement="uncorrected")),
        (MuAdamSANIA, Diagonal(1.0, 0.95, eps=1e-3)),
    ],
)
def test_spectral_unit_in_a_diagonal_geometry_is_muadam(make, diagonal):
    same_as(
        make,
        {"betas": (0.9, 0.95), "eps": 1e-3, "weight_decay": 0.1, "orthogonalizer": "svd"},
        norm=Spectral("svd"),
        preconditioner=diagonal,
        momentum=EMA(0.9),
        step=UnitLMO("original"),
    )


@pytest.mark.parametrize("mixing", [None, "direct", "lateral"])
def test_equilibration_with_the_energy_floor_is_andi(mixing):
    same_as(
        ANDI,
        {"threshold": 3, "mixing": mixing, "weight_decay": 0.1},
        preconditioner=Equilibration(threshold=3, mixing=mixing),
        momentum=HeavyBall(0.9, nesterov=True, where="after"),
        step=EnergyFloor(),
    )


def test_rms_matched_steps_have_that_root_mean_square():
    for norm in NORMS.values():
        previous = W0
        for w in composed(lr=0.5, norm=norm, momentum=EMA(0.9), step=RMSMatched(0.3)):
            assert float((w - previous).pow(2).mean().sqrt()) == pytest.approx(0.15, rel=1e-10)
            previous = w
