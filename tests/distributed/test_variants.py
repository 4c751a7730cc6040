"""Steps on shards with everything that changes the weight's side, the dtype, or ties parameters together."""

import copy
from functools import partial

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.nn import Parameter

import steepest
from distributed import parity
from distributed.harness import run
from steepest import (
    ANDI,
    EMA,
    AdamSANIA,
    AdamW,
    ClippedScion,
    ColNorm,
    Diagonal,
    Equilibration,
    Frobenius,
    Max,
    MuAdam,
    Muon,
    RMSMatched,
    RowNorm,
    Scion,
    SignSGD,
    Steepest,
    UnitLMO,
)
from steepest.distributed import configure
from steepest.distributed.settings import settings_of
from toys import MAKERS, give_gradients, parameters, train


class Loss:
    """An optimizer whose steps are given a loss."""

    def __init__(self, params, **options) -> None:
        self.optimizer = AdamSANIA(params, **options)
        self.state, self.count = self.optimizer.state, 0

    def step(self) -> None:
        self.count += 1
        self.optimizer.step(lambda: torch.tensor(3.0 / self.count, dtype=torch.float64))


MATRICES = [(7, 5), (3, 40), (9, 9), (1, 1)]
STACKS = [(5, 3, 4), (4, 6, 5)]
VARIANTS = {
    "polyak": partial(Loss, lr=0.5, polyak=True),
    "clipped sign": partial(ClippedScion, lr=0.02, rho=40.0, norm="sign", momentum=0.5),
    "clipped rows": partial(ClippedScion, lr=0.02, rho=40.0, norm="row"),
    "clipped constrained": partial(ClippedScion, lr=0.02, rho=40.0, norm="bias_rms", constrained=True),
    "scion columns": partial(Scion, lr=0.02, norm="col_normalized", radius=2.0),
    "scion bias": partial(Scion, lr=0.02, norm="bias_rms", constrained=True),
    "hyperball AdamW": partial(steepest.hyperball(AdamW), lr=0.02),
    "hyperball ANDI": partial(steepest.hyperball(ANDI), lr=0.02, threshold=3),
    "cautious": partial(steepest.cautious(AdamW), lr=0.02, weight_decay=0.1),
    "maximize": partial(ANDI, lr=0.02, threshold=3, maximize=True, weight_decay=0.1),
    "scaled sign": partial(
        Steepest, lr=0.01, norm=Max(), preconditioner=Diagonal(0.5, 0.9), step=UnitLMO("match_rms_adamw")
    ),
    "matched": partial(Steepest, lr=0.01, norm=Frobenius(), momentum=EMA(0.9), step=RMSMatched(0.2)),
    "columns": partial(
        Steepest, lr=0.01, norm=ColNorm(), preconditioner=Equilibration(2, axis="rows"), step=UnitLMO()
    ),
    "dual rows": partial(Steepest, lr=0.01, norm=RowNorm(), preconditioner=Equilibration(2, axis="columns")),
}

NETWORK = ["polyak", "clipped rows", "clipped constrained"]
"""Those in which one number ties all parameters together, counted once however many copies there are."""
ONE_SIDED = ["scion columns", "hyperball ANDI", "columns", "dual rows"]
"""Those that sum along rows or columns, of which only the one is cut when the other is whole."""


def _follow(names, mesh, placements, shapes):
    return {name: parity.follow(VARIANTS[name], mesh, placements, shapes, steps=5) for name in names}


@pytest.mark.parametrize(
    ("names", "mesh", "placements"),
    [
        (list(VARIANTS), (2, 2), (Shard(0), Shard(1))),
        ([*NETWORK, *ONE_SIDED], (4,), (Shard(0),)),
        (NETWORK, (2, 2), (Replicate(), Shard(0))),
    ],
    ids=["both", "rows", "hybrid"],
)
def test_same_as_on_one_process(names, mesh, placements) -> None:
    for rank in run(4, _follow, names, mesh, placements, MATRICES):
        for name, found in rank.items():
            assert found["weights"] <= 1e-10, name
            assert found["state"] <= 1e-10, name


def _stacks(mesh, placements):
    makers = {
        "ANDI": partial(ANDI, lr=0.02, threshold=2),
        "SignSGD": partial(SignSGD, lr=0.02),
        "Muon": partial(Muon, lr=0.02),
        "MuAdam": partial(MuAdam, lr=0.02),
        "ClippedScion": partial(ClippedScion, lr=0.02, rho=40.0),
    }
    if isinstance(placements[0], Shard) and placements[0].dim:
        del makers["Muon"], makers["MuAdam"], makers["ClippedScion"]
    return {
        name: parity.follow(partial(_batched, make), mesh, placements, STACKS, steps=5)["weights"]
        for name, make in makers.items()
    }


def _batched(make, params):
    return make([{"params": params, "batch_dims": 1}])


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_stacks_of_matrices(dim) -> None:
    """Cut along the stack, every matrix is whole on its rank: any rule runs there."""
    for rank in run(4, _stacks, (4,), (Shard(dim),)):
        assert all(found <= 1e-10 for found in rank.values()), rank


def _copies():
    return {
        name: parity.follow(name, (4,), (Replicate(),), MATRICES, steps=6)["weights"]
        for name in ("Muon", "SOAP", "ANDI")
    }


def test_copies_need_no_owner() -> None:
    for rank in run(4, _copies):
        assert all(found <= 1e-10 for found in rank.values()), rank


LOW = {
    "float32": (torch.float32, {}, 1e-5),
    "bfloat16": (torch.bfloat16, {}, 2e-2),
    "kahan": (torch.bfloat16, {"rounding": "kahan"}, 2e-2),
    "narrow momentum": (torch.float32, {"momentum_dtype": torch.bfloat16}, 2e-2),
}


def _low(case):
    dtype, options, _ = LOW[case]
    return {
        name: parity.follow(name, (2,), (Shard(0),), MATRICES, steps=5, dtype=dtype, **options)["weights"]
        for name in ("ANDI", "AdamW", "NormalizedSGD")
    }


@pytest.mark.parametrize("case", LOW)
def test_low_precision(case) -> None:
    for rank in run(2, _low, case):
        assert all(found <= LOW[case][2] for found in rank.values()), rank


def _loaded_whole(name):
    """A checkpoint of one process, loaded where the matrices of stacks are divided, and gone on from."""
    mesh, whole = init_device_mesh("cpu", (2,)), parameters(STACKS)
    single = MAKERS[name]([{"params": whole, "batch_dims": 1}])
    train(single, whole, range(3))
    parts = [Parameter(parity.sharded(p.detach().clone(), mesh, (Shard(0),))) for p in whole]
    optimizer = MAKERS[name]([{"params": parts, "batch_dims": 1}])
    begun = {name: type(value) for name, value in optimizer.state[parts[0]].items()}
    optimizer.load_state_dict(single.state_dict())
    assert {name: type(value) for name, value in optimizer.state[parts[0]].items()} == begun
    for seed in range(3, 6):
        train(single, whole, [seed])
        for p, part in zip(whole, parts, strict=True):
            assert p.grad is not None
            part.grad = parity.placed_like(part, p.grad)
        optimizer.step()
    return parity.difference([parity.whole_of(part) for part in parts], whole)


@pytest.mark.parametrize("name", ["Muon", "SOAP"])
def test_a_whole_checkpoint_is_divided_with_its_stacks(name) -> None:
    assert max(run(2, _loaded_whole, name)) <= 1e-10


def _plain_gradient():
    """A step refused for the gradient of the second parameter, and what it left of the first."""
    mesh, whole = init_device_mesh("cpu", (2,)), parameters([(6, 5), (4, 4)])
    give_gradients(whole, 0)
    parts = [Parameter(parity.sharded(p.detach().clone(), mesh, (Shard(0),))) for p in whole]
    parts[0].grad, parts[1].grad = torch.ones_like(parts[0]), whole[1].grad
    optimizer = steepest.SOAP(parts)
    with pytest.raises(
        RuntimeError, match=r"parameter 1 of shape \(4, 4\) is a DTensor with a plain gradient"
    ):
        optimizer.step()
    return [float(optimizer.state[part]["step"]) for part in parts]


def test_a_plain_gradient_is_refused_before_anything_changes() -> None:
    assert run(2, _plain_gradient) == [[0.0, 0.0]] * 2


def _without_entries():
    mesh = init_device_mesh("cpu", (2,))
    params = [Parameter(parity.sharded(torch.ones(rows, 3), mesh, (Shard(0),))) for rows in (4, 0)]
    optimizer = steepest.SOAP(params)
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    return [bool(optimizer.state.get(p)) for p in params], sorted(saved["state"])


def test_parameters_without_entries_have_no_state() -> None:
    assert run(2, _without_entries) == [([True, False], [0])] * 2


def _fused():
    mesh = init_device_mesh("cpu", (2,))
    param = Parameter(parity.sharded(torch.ones(5, 3), mesh, (Shard(0),)))
    AdamW([param], fused=True)
    with pytest.raises(ValueError, match=r"fused=True, but parameter 0 .* has no fused path in ANDI"):
        ANDI([param], fused=True, threshold=2)


def test_fused_paths_take_shards_of_elementwise_rules() -> None:
    run(2, _fused)


def _partial_gradient():
    """A gradient that is still a sum over ranks, as sequence parallelism leaves it."""
    mesh = init_device_mesh("cpu", (2,))
    param = Parameter(parity.sharded(torch.ones(4, dtype=torch.float64), mesh, (Replicate(),)))
    param.grad = DTensor.from_local(torch.full((4,), 1.5, dtype=torch.float64), mesh, (Partial(),))
    steepest.Adagrad([param], lr=0.1, eps=0.0).step()
    other = Parameter(torch.ones(4, dtype=torch.float64))
    other.grad = torch.full((4,), 3.0, dtype=torch.float64)
    steepest.Adagrad([other], lr=0.1, eps=0.0).step()
    return parity.difference([parity.whole_of(param)], [other])


def test_gradients_are_placed_as_their_parameters() -> None:
    assert max(run(2, _partial_gradient)) <= 1e-15


def _copied():
    mesh = init_device_mesh("cpu", (2,))
    param = Parameter(parity.sharded(torch.ones(6, 4), mesh, (Shard(0),)))
    param.grad = parity.sharded(torch.ones(6, 4), mesh, (Shard(0),))
    optimizer = Muon([param])
    configure(optimizer, traffic=torch.bfloat16)
    twin = copy.deepcopy(optimizer)
    optimizer.step()
    twin.step()
    other = twin.param_groups[0]["params"][0]
    return settings_of(twin) == settings_of(optimizer) and torch.equal(
        parity.whole_of(other), parity.whole_of(param)
    )


def test_copies_keep_their_settings() -> None:
    assert all(run(2, _copied))
