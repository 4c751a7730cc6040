"""Refreshes at steps of their own, or in the background, on owners that have a share of the parameters."""

from functools import partial

import pytest
import torch
from torch.distributed.tensor import Shard

from distributed.harness import run
from distributed.parity import difference, follow, one_process
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


def on_shards(world):
    return [
        follow(maker(*case), (world,), [Shard(0)], CURVED_SHAPES, steps=STEPS)["weights"] for case in CASES
    ]


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


def both(world):
    return on_shards(world), on_replicas()


@pytest.mark.parametrize("world", [2, 4])
def test_owners_refresh_when_one_process_would(world):
    for kinds in run(world, both, world):
        for found in kinds:
            for worst, case in zip(found, CASES, strict=True):
                assert worst < 1e-8, case


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
