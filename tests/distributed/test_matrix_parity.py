"""Optimizers that need whole matrices, on shards and on replicas: twenty steps as on one process."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import Replicate, Shard

from distributed.harness import run
from distributed.parity import difference, follow, one_process
from steepest import hyperball, recipes
from steepest.distributed import configure, counting, gather_state, split_work
from steepest.distributed.whole_state import complete, release
from steepest.optimizers import SOAP, MuAdam, Muon, Steepest
from toys import CURVED, MAKERS, copies, equal, give_gradients, parameters

FLAT = ["ClippedScion", "MuAdam", "MuAdamSANIA", "Muon", "Scion", "Scion constrained", "Steepest spectral"]
SHAPES = [(7, 5), (3, 1000), (1, 1), (9,), (4, 3, 2, 2), (), (12, 12), (7, 5)]
CURVED_SHAPES = [(7, 5), (3, 60), (1, 1), (9,), (4, 3, 2, 2), (12, 12), (5, 8)]
"""No two alike: in a stack, sums round otherwise, and bases of a singular statistic's null space turn."""


def shapes_for(name):
    return CURVED_SHAPES if name in CURVED else SHAPES


def on_shards(names, mesh, placements, steps):
    return [follow(name, mesh, placements, shapes_for(name), steps) for name in names]


@pytest.mark.parametrize("world", [2, 4])
def test_shards(world):
    names = [*FLAT, *CURVED]
    for found in run(world, on_shards, names, (world,), [Shard(0)], 20):
        for name, worst in zip(names, found, strict=True):
            assert worst["weights"] < 1e-8, (name, worst)
            assert worst["state"] < 1e-8, (name, worst)


@pytest.mark.parametrize(
    ("mesh", "placements"),
    [((4,), [Shard(1)]), ((2, 2), [Replicate(), Shard(0)]), ((2, 2), [Shard(0), Shard(1)])],
)
def test_other_meshes(mesh, placements):
    for found in run(4, on_shards, ["ClippedScion", "MuAdam", "SOAP"], mesh, placements, 4):
        for worst in found:
            assert worst["weights"] < 1e-8
            assert worst["state"] < 1e-8


def on_replicas(name, steps=20):
    """Differences from one process, and whether all ranks agree bit for bit."""
    params = parameters(shapes_for(name))
    optimizer = MAKERS[name](params)
    split_work(optimizer)
    for seed in range(steps):
        give_gradients(params, seed)
        optimizer.step()
    whole, state = one_process(name, MAKERS[name], shapes_for(name), steps, torch.float64, {})
    flat = torch.cat([p.detach().reshape(-1) for p in params])
    everyone = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, flat)
    gather_state(optimizer)
    gathered = [
        difference([own[key]], [state[i][key]])
        for i, own in enumerate(optimizer.state[p] for p in params)
        for key in own
        if "basis" not in key and bool(state[i][key].any())
    ]
    held = [sorted(optimizer.state[p]) == sorted(state[i]) for i, p in enumerate(params)]
    return difference(params, whole), all(torch.equal(flat, other) for other in everyone), max(gathered), held


def replicas_of(names):
    return [on_replicas(name) for name in names]


@pytest.mark.parametrize("world", [2, 4])
def test_replicas(world):
    names = [*FLAT, *CURVED]
    for found in run(world, replicas_of, names):
        for name, (worst, agree, gathered, held) in zip(names, found, strict=True):
            assert worst < 1e-8, (name, worst)
            assert agree, name
            assert gathered < 1e-8, (name, gathered)
            assert all(held), name


def variants():
    made = {
        "hyperball": hyperball(Muon),
        "squared": lambda params: Steepest(params, lr=0.01, recipe=recipes.MUON_SQUARED),
        "shampoo": lambda params: Steepest(params, lr=0.01, recipe=recipes.SHAMPOO_SPECTRAL),
        "decayed": lambda params: MuAdam(params, lr=0.01, weight_decay=0.1),
        "maximized": lambda params: Muon(params, lr=0.01, maximize=True),
    }
    return {
        name: follow(maker, (4,), [Shard(0)], CURVED_SHAPES, steps=6)["weights"]
        for name, maker in made.items()
    }


def test_wrappers_and_recipes():
    for found in run(4, variants):
        assert max(found.values()) < 1e-8, found


def rounded():
    """Difference of one float32 step with bfloat16 traffic, whether all ranks agree, and the bytes sent."""
    params = parameters(CURVED_SHAPES, torch.float32)
    whole = parameters(CURVED_SHAPES, torch.float32)
    optimizer, alone = Muon(params, lr=0.02, orthogonalizer="svd"), Muon(whole, lr=0.02, orthogonalizer="svd")
    split_work(optimizer, traffic=torch.bfloat16)
    before = copies(params)
    with counting() as traffic:
        give_gradients(params, 0)
        optimizer.step()
    give_gradients(whole, 0)
    alone.step()
    steps = [
        (p.detach() - b, w.detach() - b) for p, w, b in zip(params, whole, before, strict=True) if p.ndim > 1
    ]
    worst = max(float((a - b).norm() / b.norm()) for a, b in steps)
    flat = torch.cat([p.detach().reshape(-1) for p in params])
    everyone = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, flat)
    return (
        worst,
        all(torch.equal(flat, other) for other in everyone),
        traffic.by_label()["directions from owners"],
    )


def test_bfloat16_traffic_is_close_and_equal_on_all_ranks():
    found = run(2, rounded)
    entries = sum(a * b for a, b in ((7, 5), (3, 60), (1, 1), (4, 12), (12, 12), (5, 8)))
    assert sum(sent for *_, sent in found) == 2 * entries
    for worst, agree, _ in found:
        assert 1e-5 < worst < 1e-2
        assert agree


def saved_by_one():
    """A state dict without gathering is refused; after gathering it goes on alone as all did together."""
    params = parameters(CURVED_SHAPES)
    optimizer = MAKERS["SOAP"](params)
    split_work(optimizer)
    for seed in range(4):
        give_gradients(params, seed)
        optimizer.step()
    with pytest.raises(RuntimeError) as raised:
        optimizer.state_dict()
    gather_state(optimizer)
    alone = [p.detach().clone().requires_grad_() for p in params]
    if dist.get_rank() == 1:
        saved = optimizer.state_dict()
        fresh = MAKERS["SOAP"](alone)
        fresh.load_state_dict(saved)
        for seed in range(4, 8):
            give_gradients(alone, seed)
            fresh.step()
    again = MAKERS["SOAP"](params)
    split_work(again)
    again.load_state_dict(optimizer.state_dict())
    for seed in range(4, 8):
        give_gradients(params, seed)
        again.step()
    return str(raised.value), dist.get_rank() != 1 or equal(copies(params), copies(alone))


def test_gathered_state_is_saved_by_one_rank():
    for message, same in run(2, saved_by_one):
        assert same
        assert "is on rank" in message
        assert "gather_state(optimizer) on every rank" in message


def taken_back():
    """The split is refused to be taken back while owners keep state; then every rank goes on by itself."""
    params, whole = parameters(CURVED_SHAPES), parameters(CURVED_SHAPES)
    optimizer, alone = MAKERS["SOAP"](params), MAKERS["SOAP"](whole)
    split_work(optimizer)
    for seed in range(4):
        if seed == 2:
            with pytest.raises(
                RuntimeError, match=r"gather_state\(optimizer\) on every rank before configure"
            ):
                configure(optimizer)
            gather_state(optimizer)
            configure(optimizer)
        for one, own in ((optimizer, params), (alone, whole)):
            give_gradients(own, seed)
            one.step()
    return difference(params, whole)


def test_a_split_is_taken_back_with_the_whole_state():
    assert max(run(2, taken_back)) < 1e-8


def test_state_missing_on_its_owner_is_told():
    params = parameters([(8, 8)])
    optimizer = SOAP(params)
    [group] = optimizer.param_groups
    rule, own = optimizer.recipe(group), {"step": torch.tensor(3.0)}
    with pytest.raises(RuntimeError, match="state of layer is not on its owner"):
        complete(own, rule, params[0], group, "layer")
    own["step"] -= 2
    complete(own, rule, params[0], group, "layer")
    assert {"left", "right_basis", "exp_avg"} <= set(own)
    release(own)
    assert set(own) == {"step"}


def test_a_process_group_is_needed():
    with pytest.raises(RuntimeError, match="init_process_group first"):
        split_work(Muon([torch.nn.Parameter(torch.ones(2, 2))]))


def traffic_of_shards(dtype):
    params = [(64, 32), (32, 64), (16, 16)]
    with counting() as traffic:
        follow(
            lambda p: configured(Muon(p, lr=0.01), dtype),
            (4,),
            [Shard(0)],
            params,
            steps=1,
            dtype=torch.float32,
        )
    return traffic.by_label()


def configured(optimizer, dtype):
    configure(optimizer, traffic=dtype)
    return optimizer


@pytest.mark.parametrize(("dtype", "width"), [(None, 4), (torch.bfloat16, 2)])
def test_bytes_of_muon_on_shards(dtype, width):
    """Every entry but the owner's own share goes to the owner and comes back: 2 mn (p - 1) / p."""
    found = run(4, traffic_of_shards, dtype)
    entries = 64 * 32 + 32 * 64 + 16 * 16
    for label in ("matrices to owners", "directions from owners"):
        assert sum(sent[label] for sent in found) == entries * width * 3 / 4
