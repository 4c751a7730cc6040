"""Refreshes of parameters spread over a cycle: when, by what share, and that nothing else changes."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from optimizers.trajectories import follow, gradients, start
from steepest import KLSOAP, SOAP, KLShampoo, OneSidedShampoo, Shampoo, SPlus
from steepest.staggering import spread

METHODS: list[tuple[Any, str]] = [
    (SOAP, "left_basis"),
    (KLShampoo, "left_basis"),
    (KLSOAP, "right_basis"),
    (SPlus, "right_basis"),
    (Shampoo, "left_root"),
    (OneSidedShampoo, "left_root"),
]
every_method = pytest.mark.parametrize(("make", "kept"), METHODS)
STAGGERED: dict[str, Any] = {"precondition_frequency": 4, "refresh_timing": "staggered"}
SHAPES = [(5, 4), (9, 4), (5, 4), (7, 7), (5, 4)]


def train(optimizer: Any, params: list[Parameter], grads: list[list[Tensor]]) -> None:
    for step in grads:
        for param, g in zip(params, step, strict=True):
            param.grad = g.clone()
        optimizer.step()


def problem(steps: int) -> tuple[list[Parameter], list[list[Tensor]]]:
    params = [Parameter(start(shape, seed=i)) for i, shape in enumerate(SHAPES)]
    paths = [gradients(shape, steps, seed=i) for i, shape in enumerate(SHAPES)]
    return params, [list(step) for step in zip(*paths, strict=True)]


@pytest.mark.parametrize("steps", [1, 2, 10, 100])
def test_no_step_bears_much_more_than_its_share(steps):
    costs = (8.0, 1.0, 27.0, 1.0, 1.0, 64.0, 8.0, 8.0, 27.0, 1.0, 1.0, 1.0)
    found = spread(costs, steps)
    loads = [sum(c for c, s in zip(costs, found, strict=True) if s == step) for step in range(steps)]
    assert sum(loads) == sum(costs)
    assert max(loads) <= 4 / 3 * max(max(costs), sum(costs) / steps)
    assert found[costs.index(64.0)] == 0


@every_method
def test_every_parameter_refreshes_once_a_cycle_in_a_step_of_its_own(make, kept):
    params, grads = problem(13)
    optimizer = make(params, **STAGGERED)
    train(optimizer, params, grads[:2])
    changed: list[list[int]] = [[] for _ in params]
    for t, step in enumerate(grads[2:], start=3):
        before = [optimizer.state[p][kept].clone() for p in params]
        train(optimizer, params, [step])
        for i, param in enumerate(params):
            if not torch.equal(before[i], optimizer.state[param][kept]):
                changed[i].append(t)
    residues = [{t % 4 for t in times} for times in changed]
    assert all(len(one) == 1 for one in residues)
    assert all(len(times) in (2, 3) for times in changed)
    # sides of 9 and 7 fill a step each, the three small ones share the other two
    assert len(set.union(*residues)) == 4
    skipped = int(make in (SOAP, KLShampoo, KLSOAP))  # their first call has count 0
    assert residues[1] == {skipped % 4}


@every_method
def test_each_moves_as_alone_with_its_clock_shifted(make, kept):
    """Stacked members refresh alone: the result is that of a stack of one with the same slot."""
    params, grads = problem(11)
    optimizer = make(params, **STAGGERED)
    slots = spread(
        tuple(
            optimizer._rules()[id(g)].for_shape(p.shape).preconditioner.refresh_cost(p.shape)
            for g in optimizer.param_groups
            for p in g["params"]
        ),
        4,
    )
    rule = optimizer._rules()[id(optimizer.param_groups[0])].for_shape(torch.Size((5, 4)))
    stacks = [i for i, shape in enumerate(SHAPES) if shape == (5, 4)]
    train(optimizer, params, grads)
    hypers = {"lr": 0.0, "momentum": optimizer.defaults["betas"][0], "beta2": optimizer.defaults["betas"][1]}
    hypers |= {"eps": optimizer.defaults.get("eps", 0.0), "ema": 0.999}
    for i in stacks:
        state = rule.init(torch.zeros(1, 5, 4, dtype=torch.float64))
        for t, step in enumerate(grads, start=1):
            rule.update(step[i][None], state, {**hypers, "step": t, "slots": (slots[i],)})
        torch.testing.assert_close(optimizer.state[params[i]][kept], state[kept][0], rtol=1e-9, atol=1e-11)
    assert len({slots[i] for i in stacks}) > 1


@every_method
def test_a_parameter_alone_is_not_shifted(make, kept):
    w0, grads = start((6, 9)), gradients((6, 9), 12)
    together, staggered = (
        follow(make, w0, grads, precondition_frequency=4, refresh_timing=timing)
        for timing in ("together", "staggered")
    )
    assert all(torch.equal(a, b) for a, b in zip(together, staggered, strict=True))


@every_method
def test_resume_is_bitwise(make, kept):
    params, grads = problem(12)
    optimizer = make(params, **STAGGERED)
    train(optimizer, params, grads[:5])
    saved, twins = copy.deepcopy(optimizer.state_dict()), [Parameter(p.detach().clone()) for p in params]
    train(optimizer, params, grads[5:])
    resumed = make(twins, **STAGGERED)
    resumed.load_state_dict(saved)
    train(resumed, twins, grads[5:])
    for param, twin in zip(params, twins, strict=True):
        assert torch.equal(param, twin)
        for name, value in optimizer.state[param].items():
            assert torch.equal(value, resumed.state[twin][name]), name


@pytest.mark.parametrize("options", [{"max_precondition_dim": 4}, {"grafting": "adam"}])
def test_blocks_and_grafts_are_staggered_too(options):
    params, grads = problem(9)
    optimizer = Shampoo(params, **options, **STAGGERED)
    train(optimizer, params, grads[:4])
    changes = []
    for step in grads[4:8]:
        before = [optimizer.state[p]["left_root"].clone() for p in params]
        train(optimizer, params, [step])
        changes.append(
            [not torch.equal(b, optimizer.state[p]["left_root"]) for b, p in zip(before, params, strict=True)]
        )
    assert [sum(one) for one in zip(*changes, strict=True)] == [1] * len(params)
    assert max(map(sum, changes)) < len(params)


def test_members_of_a_batch_dimension_share_their_parameters_slot():
    stack = Parameter(torch.stack([start((5, 4), seed=i) for i in range(3)]))
    optimizer = SOAP([{"params": [stack], "batch_dims": 1}], **STAGGERED)
    train(
        optimizer,
        [stack],
        [[torch.stack([start((5, 4), seed=i + 3 * t) for i in range(3)])] for t in range(9)],
    )
    assert torch.isfinite(stack).all()


@pytest.mark.parametrize("make", [SOAP, KLShampoo, SPlus, Shampoo])
def test_bad_values_are_named(make):
    with pytest.raises(
        ValueError, match="refresh_timing must be one of 'together', 'staggered', 'background', got 'never'"
    ):
        make([Parameter(torch.zeros(2, 2))], refresh_timing="never")
