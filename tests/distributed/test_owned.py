"""Matrices made whole on their owners: the same directions as on one process, for every rule and layout."""

from functools import cache
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

import steepest
import steepest.distributed
from distributed.harness import run
from steepest import recipes
from steepest.distributed import owned, ownership
from steepest.distributed.layout import Layout, layout_of, local
from steepest.distributed.owned_state import kept, place, shown
from steepest.distributed.settings import Settings
from steepest.distributed.shard import Shard as Piece
from steepest.momentum import EMA, HeavyBall
from steepest.preconditioners import ScaledDiagonal
from steepest.rule import Rule
from steepest.steps import Clipped, EnergyFloor, UnitLMO
from steepest.views import initial_state

SHAPES = [(7, 5), (3, 40), (1, 1), (7, 5), (5, 9), (4, 3, 2, 2), (2, 7), (9, 5)]
PLACEMENTS = {
    "rows": ((4,), [Shard(0)]),
    "columns": ((4,), [Shard(1)]),
    "copies": ((4,), [Replicate()]),
    "hybrid": ((2, 2), [Replicate(), Shard(0)]),
    "both": ((2, 2), [Shard(0), Shard(1)]),
    "two": ((2,), [Shard(0)]),
}
EXACT = {"norm": steepest.Spectral("svd"), "step": UnitLMO("original")}
RULES = {
    "Muon": Rule(norm=steepest.Spectral(), momentum=EMA(nesterov=True), step=UnitLMO("original")),
    "MuAdam": Rule(preconditioner=steepest.Diagonal(0.5, 0.95), momentum=EMA(bias_correction=True), **EXACT),
    "squared": recipes.MUON_SQUARED,
    "late": Rule(momentum=HeavyBall(where="after"), **EXACT),
    "floor": Rule(norm=steepest.Spectral("svd"), momentum=EMA(), step=EnergyFloor()),
    "dual": Rule(norm=steepest.Spectral("svd"), step=steepest.DualScaled()),
    "clipped": Rule(norm=steepest.Spectral(), momentum=EMA(), step=Clipped(radius=2.0)),
    "equilibrated": recipes.ANDI_SPECTRAL,
    "Shampoo": Rule(
        preconditioner=steepest.Kronecker(frequency=2), momentum=EMA(), step=steepest.DualScaled()
    ),
    "SOAP": Rule(
        preconditioner=steepest.Eigenbasis(ScaledDiagonal(0.5), beta=None, start="skip", frequency=2),
        momentum=EMA(bias_correction=True),
        step=steepest.DualScaled(),
    ),
    "clipped Shampoo": Rule(
        preconditioner=steepest.Kronecker(frequency=2), norm=steepest.Spectral("svd"), step=Clipped()
    ),
}
STEPS = 3


def hypers(rule, step):
    return {**rule.hypers(), "lr": 0.1, "step": float(step)}


def gradient(i, step):
    generator = torch.Generator().manual_seed(100 * step + i)
    return torch.randn(SHAPES[i], dtype=torch.float64, generator=generator)


@cache
def alone(rule):
    """The directions of all steps on one process, (S, M) for each parameter."""
    results = []
    states = [{} for _ in SHAPES]
    for step in range(1, STEPS + 1):
        row = []
        for i, shape in enumerate(SHAPES):
            own = rule.for_shape(torch.Size(shape))
            x = gradient(i, step).reshape(1, shape[0], -1)
            if not states[i]:
                states[i] = own.init(torch.empty_like(x))
            update = own.update(x, states[i], hypers(own, step))
            answers = [] if update is None else [update.direction, update.momentum]
            row.append([t.reshape(shape).clone() for t in answers])  # either may be a buffer
        results.append(row)
    return results


class World:
    """Parameters on a mesh, and what the adapter would keep of them."""

    def __init__(self, rule, placement, replicas=False):
        shape, placements = PLACEMENTS[placement]
        self.settings = Settings(replicas=dist.group.WORLD if replicas else None)
        self.params, self.layouts = [], []
        mesh = None if replicas else init_device_mesh("cpu", shape)
        for size in SHAPES:
            whole = torch.zeros(size, dtype=torch.float64)
            self.params.append(whole if replicas else distribute_tensor(whole, mesh, placements))
            layout = (
                Layout(whole.shape, 0, replicas=dist.group.WORLD) if replicas else layout_of(self.params[-1])
            )
            self.layouts.append(layout)
        self.group = {"params": self.params}
        self.rule = rule
        self.state = {
            p: self.beginning(p, layout) for p, layout in zip(self.params, self.layouts, strict=True)
        }

    def beginning(self, param, layout):
        rule = self.rule.for_shape(param.shape)
        made = initial_state(rule, param, self.group)
        if ownership.kind(rule) == "whole":
            return {name: value for name, value in made.items() if name == "step"}
        return {
            name: layout.wrap(layout.part(value).clone()) if value.shape == param.shape else value
            for name, value in made.items()
        }

    def owned(self, group, param):
        place = next(i for i, p in enumerate(self.params) if p is param)
        return self.rule.for_shape(param.shape), self.layouts[place]

    def step(self, number):
        """This rank's directions, by parameter."""
        owners = ownership.owners([self.group], self.owned)
        pieces = []
        for i, (param, layout) in enumerate(zip(self.params, self.layouts, strict=True)):
            rule, state = self.rule.for_shape(param.shape), self.state[param]
            if "step" in state:
                state["step"] += 1
            grad = layout.part(gradient(i, number)).clone()
            numbers = hypers(rule, number)
            pieces.append(Piece(self.group, i, param, layout, rule, numbers, local(param), grad, state))
        found = owned.directions(pieces, self.settings, owners)
        return {piece.index: (piece, s, m) for piece, s, m in found}


def differences(rule_name, placement, replicas=False, wave=None):
    """The largest difference from one process over all steps, parameters and entries of this rank."""
    if wave:
        owned.WAVE = wave
    try:
        rule = RULES[rule_name]
        expected, world, worst = alone(rule), World(rule, placement, replicas), 0.0
        for number in range(1, STEPS + 1):
            found = world.step(number)
            assert sorted(found) == list(range(len(SHAPES)))
            for i, (piece, *answers) in found.items():
                if not expected[number - 1][i]:
                    assert answers == [None, None]
                    continue
                for answer, whole in zip(answers, expected[number - 1][i], strict=True):
                    if answer is None:
                        assert not rule.step.whole_network
                        continue
                    part = piece.layout.part(whole)
                    assert answer.shape == part.shape
                    if part.numel():
                        worst = max(worst, ((answer - part).abs().max() / whole.abs().max()).item())
        return worst
    finally:
        owned.WAVE = 2**22


def many(cases):
    return [differences(*case) for case in cases]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_directions_equal_those_of_one_process(placement):
    world = 2 if placement == "two" else 4
    cases = [(name, placement) for name in RULES]
    for found in run(world, many, cases):
        assert len(found) == len(cases)
        for (name, _), worst in zip(cases, found, strict=True):
            assert worst < 1e-9, (name, placement, worst)


def test_replicas_divide_the_work():
    for found in run(4, many, [(name, "copies", True) for name in RULES]):
        assert max(found) < 1e-9


def test_many_small_waves():
    for found in run(4, many, [("Muon", "rows", False, 1), ("SOAP", "rows", False, 40)]):
        assert max(found) < 1e-9


def shown_and_placed(rule_name, placement, replicas=False):
    """Train, show the state, check it, and go on from it in a fresh world: as the first one goes on."""
    rule = RULES[rule_name]
    first, second = World(rule, placement, replicas), World(rule, placement, replicas)
    for number in (1, 2):
        first.step(number)
    state = shown(kept([first.group], first.owned), first.state)
    facts = []
    for i, (param, layout) in enumerate(zip(first.params, first.layouts, strict=True)):
        named: dict[str, Any] = state[param]
        for name, value in named.items():
            assert replicas or (
                value.device_mesh is layout.mesh and len(value.placements) == layout.mesh.ndim
            )
            if not replicas and value.shape == param.shape and name.startswith("exp"):
                assert value.placements == param.placements
            whole = value if replicas else value.full_tensor()
            facts.append((i, name, whole.double().numpy().copy()))  # tensors do not pass the harness
    for mine, theirs in zip(second.params, first.params, strict=True):
        second.state[mine] = {"step": first.state[theirs]["step"].clone(), **state[theirs]}
    place(kept([second.group], second.owned), second.state)
    held = [sorted(own) for own in second.state.values()]
    assert held == [sorted(own) for own in first.state.values()]
    assert any("step" in own and len(own) > 1 for own in second.state.values()) or dist.get_rank() > 3
    for (_, s, _), (_, t, _) in zip(first.step(3).values(), second.step(3).values(), strict=True):
        assert s is not None
        assert t is not None
        assert torch.equal(s, t)
    return facts


@pytest.mark.parametrize(
    ("rule", "placements"), [("SOAP", ["rows", "columns", "both"]), ("Shampoo", ["rows"])]
)
def test_state_is_shown_sharded_and_taken_back(rule, placements):
    several = [run(4, shown_and_placed, rule, placement) for placement in placements]
    several.append(run(4, shown_and_placed, rule, "copies", True))
    one = several[0][0]
    assert {name for _, name, _ in one} >= {"left", "right", "fallbacks", "left_unit"}
    for facts in (facts for ranks in several for facts in ranks):
        for (i, name, value), (j, other, expected) in zip(facts, one, strict=True):
            assert (i, name) == (j, other)
            assert value.shape == expected.shape
            if name not in ("left", "right", "left_unit", "right_unit", "fallbacks"):
                continue  # eigenvectors of eigenvalue zero are anything
            assert abs(value - expected).max() <= 1e-9 * (1 + abs(expected).max())


def blocks():
    """State dicts with ``blocks=True``: parameter-shaped state only."""
    mesh = init_device_mesh("cpu", (2,))
    param = torch.nn.Parameter(distribute_tensor(torch.ones(4, 4), mesh, [Shard(0)]))
    whole = steepest.Muon([param])
    steepest.distributed.configure(whole, blocks=True)
    held = whole.state_dict()["state"][0]
    factored = steepest.SOAP([param])
    steepest.distributed.configure(factored, blocks=True)
    with pytest.raises(RuntimeError, match=r"parameter 0 of shape \(4, 4\) is of this rank's block"):
        factored.state_dict()
    return list(held)


def test_factors_of_blocks_are_not_saved():
    assert run(2, blocks) == [["momentum_buffer"]] * 2
