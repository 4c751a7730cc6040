"""Rules are pure, batched and descending, whatever the four choices are."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from steepest import (
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
    NoMomentum,
    RMSMatched,
    RowNorm,
    Rule,
    Spectral,
    UnitLMO,
)
from steepest.numeric import inner
from steepest.preconditioners import Coordinates, Preconditioner

NORMS = [Frobenius(), Max(), Spectral("svd"), Spectral(), RowNorm(), ColNorm()]
PRECONDITIONERS = [
    Identity(),
    Diagonal(0.5, 0.9),
    Diagonal(1 / 3, None, eps=1e-4),
    Diagonal(1.0, 0.9, eps=1e-3, eps_placement="inside"),
    Diagonal(0.5, 0.9, eps_placement="uncorrected", bias_correction=False),
    Equilibration(),
    Equilibration(mixing="lateral", shift=2),
    Equilibration(axis="rows"),
]
MOMENTA = [
    NoMomentum(),
    HeavyBall(0.8, nesterov=True),
    HeavyBall(0.8, where="after", start="gradient"),
    EMA(0.8, bias_correction=True),
    EMA(0.8, nesterov=True, where="after"),
]
STEPS = [UnitLMO("original"), DualScaled(), EnergyFloor(), RMSMatched()]
GRADS = [
    torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(t)) for t in range(3)
]


def roll_out(rule: Rule, grads: list[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The directions along fixed gradients, checking that nothing but the named state changes."""
    state = rule.init(grads[0])
    names, shapes = list(state), [v.shape for v in state.values()]
    directions = []
    for t, g in enumerate(grads, 1):
        hypers: dict[str, Any] = {**rule.hypers(), "step": t}
        kept, given = dict(hypers), g.clone()
        update = rule.update(given, state, hypers)
        assert update is not None
        assert torch.equal(given, g)
        assert hypers == kept
        assert list(state) == names
        assert [v.shape for v in state.values()] == shapes
        directions.append(update.direction.clone())
    return directions, state


@pytest.mark.parametrize("preconditioner", PRECONDITIONERS, ids=repr)
@pytest.mark.parametrize("norm", NORMS, ids=repr)
def test_every_composition(norm, preconditioner):
    for momentum in MOMENTA:
        for step in STEPS:
            rule = Rule(norm, preconditioner, momentum, step)
            directions, state = roll_out(rule, GRADS)
            assert all(s.isfinite().all() and s.dtype == torch.float64 for s in directions), rule
            assert all(v.dtype == torch.float64 for v in state.values()), rule
            # At the first step momentum is a positive multiple of its input, so that all descend.
            assert (inner(GRADS[0], directions[0]) > 0).all(), rule
            for i in range(3):
                alone, own = roll_out(rule, [g[i : i + 1] for g in GRADS])
                for one, all_ in zip([*alone, *own.values()], [*directions, *state.values()], strict=True):
                    torch.testing.assert_close(one, all_[i : i + 1], rtol=1e-9, atol=1e-12)


@pytest.mark.no_cover  # tens of thousands of updates through lines that the test above takes
@pytest.mark.parametrize("scales", [(1e-30, 1.0, 0.0), (1e30, 1.0), (0.0, 0.0)], ids=repr)
@pytest.mark.parametrize("preconditioner", PRECONDITIONERS, ids=repr)
def test_every_composition_is_finite_in_float32(preconditioner, scales):
    """Also with eps = 0, and with gradients of ordinary size after extreme ones."""
    grads = [g.float() * s for g, s in zip(GRADS, scales, strict=False)]
    for norm in NORMS:
        for momentum in MOMENTA:
            for step in (UnitLMO(), EnergyFloor(), RMSMatched()):
                rule = Rule(norm, preconditioner, momentum, step)
                for eps in (0.0, 1e-8):
                    state = rule.init(grads[0])
                    for t, g in enumerate(grads, 1):
                        update = rule.update(g, state, {**rule.hypers(), "eps": eps, "step": t})
                        assert update is not None
                        assert update.direction.isfinite().all(), (rule, eps, t)
                        assert g.any() or state or not update.direction.any(), (rule, eps, t)


def test_rules_are_values():
    rule = Rule(Spectral(), Diagonal(), EMA(), UnitLMO())
    twin = Rule(Spectral(), Diagonal(), EMA(), UnitLMO())
    assert rule == twin
    assert hash(rule) == hash(twin)
    assert rule != dataclasses.replace(rule, decay="l2")
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.norm = Max()  # type: ignore[misc]


def test_hypers_of_the_parts_by_name():
    assert Rule().hypers() == {}
    rule = Rule(preconditioner=Diagonal(beta=0.7, eps=1e-3), momentum=EMA(0.6))
    assert rule.hypers() == {"momentum": 0.6, "beta2": 0.7, "eps": 1e-3}


def test_shape_chooses_the_rule():
    rule = Rule(preconditioner=Equilibration(threshold=4))
    assert rule.for_shape(torch.Size((5, 6))) is rule
    assert rule.for_shape(torch.Size((4, 6))) == Rule()


@dataclasses.dataclass(frozen=True)
class Warmup(Preconditioner):
    """Spends its first step on statistics, and counts what it has seen afterwards."""

    @property
    def needs_step(self) -> bool:
        return True

    def init(self, x: Tensor) -> dict[str, Tensor]:
        return {"seen": torch.zeros_like(x[:, 0, 0])}

    def prepare(self, grad, state, hypers) -> Coordinates | None:
        return None if hypers["step"] == 1 else Identity()

    def finish(self, grad, state, hypers) -> None:
        state["seen"] += 1


def test_a_step_may_gather_statistics_only():
    rule = Rule(preconditioner=Warmup(), momentum=HeavyBall(0.5), step=DualScaled())
    state = rule.init(GRADS[0])
    assert rule.update(GRADS[0], state, {"momentum": 0.5, "step": 1}) is None
    assert not state["momentum_buffer"].any()
    update = rule.update(GRADS[1], state, {"momentum": 0.5, "step": 2})
    assert update is not None
    assert torch.equal(update.direction, GRADS[1])
    assert state["seen"].tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"norm": "spectral"}, TypeError, r"norm must be a Norm such as .*Spectral\(\); got 'spectral'"),
        ({"preconditioner": Max()}, TypeError, r"preconditioner must be a Preconditioner .*got Max\(\)"),
        ({"momentum": 0.9}, TypeError, r"momentum must be a Momentum such as .*EMA\(\).*; got 0\.9"),
        ({"step": UnitLMO}, TypeError, "step must be a StepLength such as"),
        ({"decay": "L2"}, ValueError, "decay must be one of 'decoupled', .*'l2'.* got 'L2'"),
    ],
)
def test_bad_parts(kwargs, error, message):
    with pytest.raises(error, match=message):
        Rule(**kwargs)
