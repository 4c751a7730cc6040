"""Compositions: each named recipe against its formula, and everything with everything."""

import itertools

import pytest
import torch
from torch import Tensor

import steepest
from steepest import recipes
from steepest.linalg import polar
from steepest.preconditioners import InwardOnly

SHAPES = [(6, 4), (3, 5), (4, 4)]
BETA = 0.95


def gradients(shape: tuple[int, ...], steps: int = 12) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(steps)]


def run(optimizer: torch.optim.Optimizer, param: torch.nn.Parameter, grads: list[Tensor]) -> Tensor:
    for grad in grads:
        param.grad = grad.clone()
        optimizer.step()
    return param.detach()


def nesterov(grads: list[Tensor]) -> list[Tensor]:
    mean, averages = torch.zeros_like(grads[0]), []
    for grad in grads:
        mean = BETA * mean + (1 - BETA) * grad
        averages.append(BETA * mean + (1 - BETA) * grad)
    return averages


def scale(shape: tuple[int, ...]) -> float:
    return max(1.0, shape[0] / shape[1]) ** 0.5


def power(a: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(a)
    return (vectors * values.clamp(min=1e-12) ** exponent) @ vectors.mT


def muon_squared(grads: list[Tensor]) -> list[Tensor]:
    v, out = torch.zeros_like(grads[0]), []
    for t, (grad, m) in enumerate(zip(grads, nesterov(grads), strict=True), start=1):
        v = BETA * v + (1 - BETA) * grad**2
        out.append(polar(m / (v / (1 - BETA**t) + 1e-8).sqrt()))
    return out


def andi_spectral(grads: list[Tensor]) -> list[Tensor]:
    out = []
    for grad, m in zip(grads, nesterov(grads), strict=True):
        d = (grad.norm(dim=1, keepdim=True) + grad.norm(dim=0, keepdim=True) + 1e-8).sqrt()
        out.append(polar(m / d) / d)
    return out


def equilibrated(dim: int) -> object:
    def directions(grads: list[Tensor]) -> list[Tensor]:
        pairs = zip(grads, nesterov(grads), strict=True)
        return [polar(m / (grad.norm(dim=dim, keepdim=True) + 1e-8).sqrt()) for grad, m in pairs]

    return directions


def shampoo_spectral(grads: list[Tensor]) -> list[Tensor]:
    (rows, columns), out = grads[0].shape, []
    a, b = torch.zeros(rows, rows, dtype=torch.float64), torch.zeros(columns, columns, dtype=torch.float64)
    left, right = a, b
    for t, (grad, m) in enumerate(zip(grads, nesterov(grads), strict=True), start=1):
        a, b = BETA * a + (1 - BETA) * grad @ grad.mT, BETA * b + (1 - BETA) * grad.mT @ grad
        if t == 1 or t % 10 == 0:
            correction = 1 - BETA**t
            left = power(a / correction + 1e-12 * torch.eye(rows), -1 / 8)
            right = power(b / correction + 1e-12 * torch.eye(columns), -1 / 8)
        out.append(left @ polar(left @ m @ right) @ right)
    return out


FORMULAS = {
    "MUON_SQUARED": muon_squared,
    "ANDI_SPECTRAL": andi_spectral,
    "ROW_EQUILIBRATED_MUON": equilibrated(1),
    "COLUMN_EQUILIBRATED_MUON": equilibrated(0),
    "SHAMPOO_SPECTRAL": shampoo_spectral,
}


@pytest.mark.parametrize("name", sorted(set(recipes.ALL) - {"SOAP_SPECTRAL"}))
def test_a_recipe_follows_its_formula(name):
    shape = (20, 18) if "ANDI" in name or "EQUILIBRATED" in name else (4, 4)  # above ANDI's threshold of 16
    grads = gradients(shape)
    param = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    reached = run(steepest.Steepest([param], 0.1, recipe=recipes.ALL[name]), param, grads)
    directions = FORMULAS[name](grads)  # type: ignore[operator]
    expected = -0.1 * scale(shape) * torch.stack(directions).sum(0)
    torch.testing.assert_close(reached, expected, rtol=1e-7, atol=1e-9)


def test_the_spectral_oracle_in_soaps_basis_without_second_moments_is_muon():
    """A rotation does not change the spectral norm: only what stands inside the basis can."""
    grads = gradients((6, 4))
    rotated = steepest.Rule(
        norm=steepest.Spectral(),
        preconditioner=steepest.Eigenbasis(beta=BETA, frequency=3),
        momentum=steepest.EMA(BETA, nesterov=True),
        step=steepest.UnitLMO("original"),
    )
    a, b = (torch.nn.Parameter(torch.zeros(6, 4, dtype=torch.float64)) for _ in range(2))
    run(steepest.Steepest([a], 0.1, recipe=rotated), a, grads)
    run(steepest.Muon([b], 0.1, momentum=BETA), b, grads)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    soap = torch.nn.Parameter(torch.zeros(6, 4, dtype=torch.float64))
    run(steepest.Steepest([soap], 0.1, recipe=recipes.SOAP_SPECTRAL), soap, grads)
    assert (soap - b).abs().max() > 1e-2


def test_a_group_may_have_a_recipe_of_its_own():
    """It trains as an optimizer of that recipe, with the numbers the group gives."""
    first, own, alone = (torch.nn.Parameter(torch.ones(4, 3)) for _ in range(3))
    settings = {"recipe": recipes.MUON_SQUARED, "momentum": 0.5}
    both = steepest.Steepest([{"params": [first]}, {"params": [own], **settings}], 0.1)
    single = steepest.Steepest([{"params": [alone], **settings}], 0.1)
    for grad in torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(0)):
        first.grad, own.grad, alone.grad = grad, grad.clone(), grad.clone()
        both.step()
        single.step()
    assert torch.equal(own, alone)
    assert both.param_groups[1]["momentum"] == 0.5
    assert both.param_groups[1]["beta2"] == 0.95
    with pytest.raises(TypeError, match="recipe must be a Rule"):
        both.add_param_group({"params": [alone], "recipe": "muon"})


def test_parts_beside_a_recipe_replace_its_own():
    param = torch.nn.Parameter(torch.zeros(4, 4))
    optimizer = steepest.Steepest([param], 0.1, recipe=recipes.MUON_SQUARED, norm=steepest.RowNorm())
    rule = optimizer.param_groups[0]["recipe"]
    assert rule.norm == steepest.RowNorm()
    assert rule.preconditioner == recipes.MUON_SQUARED.preconditioner
    with pytest.raises(TypeError, match="recipe must be a Rule"):
        steepest.Steepest([param], 0.1, recipe="muon")  # type: ignore[arg-type]


NORMS = [
    steepest.Frobenius(),
    steepest.Max(),
    steepest.Spectral("svd"),
    steepest.RowNorm(),
    steepest.ColNorm(),
    steepest.operator_norm("auto", "svd"),
    steepest.operator_norm("sign"),
]
PRECONDITIONERS = [
    steepest.Identity(),
    steepest.Diagonal(0.5, 0.9),
    steepest.Diagonal(1.0, None),
    steepest.Equilibration(threshold=2),
    steepest.Kronecker(beta=0.9, eps=1e-4),
    steepest.Eigenbasis(beta=0.9),
    steepest.Eigenbasis(
        steepest.Diagonal(0.5, 0.9, eps=0.1), beta=0.9
    ),  # entries of V near zero: bound 1 / D
    InwardOnly(steepest.Diagonal(0.5, 0.9)),
]
MOMENTA = [
    steepest.HeavyBall(0.5, nesterov=True, where="after"),
    steepest.EMA(0.5, bias_correction=True),
]
STEPS = [
    steepest.UnitLMO("unit_rms"),
    steepest.DualScaled(),
    steepest.EnergyFloor(),
    steepest.RMSMatched(),
    steepest.Radius(2.0),
    steepest.Clipped(2.0),
    steepest.Polyak(),
]


@pytest.mark.parametrize("preconditioner", PRECONDITIONERS, ids=repr)
@pytest.mark.parametrize("norm", NORMS, ids=repr)
def test_everything_goes_with_everything_or_says_why_not(norm, preconditioner):
    target = gradients((5, 4), 1)[0]
    for momentum, step in itertools.product(MOMENTA, STEPS):
        parts = {"norm": norm, "preconditioner": preconditioner, "momentum": momentum, "step": step}
        if step.whole_network and momentum.where == "after":
            with pytest.raises(ValueError, match="momentum after the oracle"):
                steepest.Rule(**parts)
            continue
        param = torch.nn.Parameter(torch.zeros(5, 4, dtype=torch.float64))
        optimizer = steepest.Steepest([param], 1e-3, **parts)

        def loss(param=param, optimizer=optimizer):
            optimizer.zero_grad()
            value = 0.5 * (param - target).square().sum()
            value.backward()
            return value

        first = float(loss().detach())
        for _ in range(2):
            optimizer.step(loss)
        assert torch.isfinite(param).all()
        assert float(loss().detach()) < first
