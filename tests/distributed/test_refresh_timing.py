"""Refreshes at steps of their own, or in the background, where ranks have a share of the parameters."""

from functools import partial

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard
from torch.nn import Parameter

from distributed.harness import run
from distributed.parity import difference, follow, one_process, placed_like, sharded, whole_of
from distributed.test_matrix_parity import CURVED_SHAPES
from steepest.distributed import split_work
from steepest.optimizers import SOAP, KLShampoo, Shampoo
from steepest.staggering import slots
from toys import give_gradients, parameters

METHODS = {"SOAP": SOAP, "Shampoo": Shampoo, "KLShampoo": KLShampoo}
TIMINGS = ("staggered", "background")
CASES = [(name, timing) for name in METHODS for timing in TIMINGS]
STEPS = 10


def maker(name, timing):
    return partial(METHODS[name], lr=0.01, precondition_frequency=4, refresh_timing=timing)


def on_shards():
    return [follow(maker(*case), (4,), [Shard(0)], CURVED_SHAPES, steps=STEPS)["weights"] for case in CASES]


def on_replicas():
    found = []
    for case in CASES:
        params = parameters(CURVED_SHAPES)
        optimizer = maker(*case)(params)
        split_work(optimizer)
        for seed in range(STEPS):
            give_gradients(params, seed)
            optimizer.step()
        whole, _ = one_process(maker(*case), maker(*case), CURVED_SHAPES, STEPS, torch.float64, {})
        found.append(difference(params, whole))
    return found


@pytest.mark.parametrize(("world", "kind"), [(4, on_shards), (2, on_replicas)])
def test_owners_refresh_when_one_process_would(world, kind):
    for found in run(world, kind):
        for worst, case in zip(found, CASES, strict=True):
            assert worst < 1e-8, case


def on_parts():
    """Stacks cut between their matrices, one of which a rank has no part of."""
    return follow(
        lambda params: maker("SOAP", "staggered")([{"params": params, "batch_dims": 1}]),
        (2,),
        [Shard(0)],
        [(4, 6, 6), (1, 5, 5), (3, 4, 4), (1, 7, 7)],
        steps=STEPS,
    )["weights"]


def without_a_gradient():
    """Copies on every rank, the first of which has a gradient at every other step."""
    mesh, whole = init_device_mesh("cpu", (2,)), parameters(CURVED_SHAPES)
    parts = [Parameter(sharded(p.detach().clone(), mesh, [Replicate()])) for p in whole]
    optimizers = [maker("SOAP", "staggered")(params) for params in (whole, parts)]
    for seed in range(STEPS):
        give_gradients(whole, seed)
        if seed % 2:
            whole[0].grad = None
        for p, part in zip(whole, parts, strict=True):
            part.grad = None if p.grad is None else placed_like(part, p.grad)
        for optimizer in optimizers:
            optimizer.step()
    return difference([whole_of(part) for part in parts], whole)


@pytest.mark.parametrize("kind", [on_parts, without_a_gradient])
def test_a_rank_alone_refreshes_when_one_process_would(kind):
    """The turns of a cycle follow from all parameters of a group, not from those that a rank works on."""
    assert max(run(2, kind)) < 1e-8


@pytest.mark.parametrize("name", METHODS)
def test_these_parameters_refresh_at_different_steps(name):
    """Else the test above could not tell one share of them from another."""
    results = {}
    for timing in ("together", *TIMINGS):
        params = parameters(CURVED_SHAPES)
        optimizer = maker(name, timing)(params)
        group = optimizer.param_groups[0]
        if timing == "staggered":
            assert len(set(slots(group, optimizer.recipe(group)).values())) == 4
        for seed in range(STEPS):
            give_gradients(params, seed)
            optimizer.step()
        results[timing] = params
    for timing in TIMINGS:
        assert difference(results[timing], results["together"]) > 1e-4, timing
