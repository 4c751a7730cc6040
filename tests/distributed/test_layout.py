"""Layouts agree with where torch puts the entries."""

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from distributed.harness import run
from steepest.distributed.layout import layout_of, local

SHAPES = [(7, 5), (3, 1000), (1, 1), (9,), (5, 3, 2, 2)]


def _regions(mesh_shape, placements) -> None:
    mesh = init_device_mesh("cpu", mesh_shape)
    for shape in SHAPES:
        if any(isinstance(p, Shard) and p.dim >= len(shape) for p in placements):
            continue
        whole = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
        param = distribute_tensor(whole, mesh, placements)
        layout = layout_of(param)
        assert layout is not None
        assert torch.equal(layout.part(whole), local(param))
        assert layout.local_shape == local(param).shape
        held = torch.zeros(shape)
        for offset, size in (layout.regions[rank] for rank in layout.replica_of(layout.rank)):
            block = held
            for dim, (start, length) in enumerate(zip(offset, size, strict=True)):
                block = block.narrow(dim, start, length)
            block += 1
        assert torch.equal(held, torch.ones(shape)), "one copy covers every entry once"
        back = layout.wrap(local(param))
        assert isinstance(back, DTensor)
        assert torch.equal(back.full_tensor(), whole)


@pytest.mark.parametrize(
    ("mesh", "placements"),
    [
        ((4,), (Shard(0),)),
        ((4,), (Shard(1),)),
        ((4,), (Replicate(),)),
        ((2, 2), (Replicate(), Shard(0))),
        ((2, 2), (Shard(0), Shard(1))),
        ((2, 2), (Shard(0), Shard(0))),
        ((2, 2), (Shard(1), Replicate())),
    ],
    ids=str,
)
def test_regions(mesh, placements) -> None:
    run(4, _regions, mesh, placements)


def _fully_sharded_tensor_parallel() -> None:
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 7), torch.nn.Linear(7, 5))
    expected = [p.detach().clone() for p in model.parameters()]
    parallelize_module(model, mesh["tensor"], {"0": ColwiseParallel(), "1": RowwiseParallel()})
    fully_shard(model, mesh=mesh["data"])
    for param, whole in zip(model.parameters(), expected, strict=True):
        layout = layout_of(param)
        assert layout is not None
        assert torch.equal(layout.part(whole), local(param.detach()))


def test_regions_of_fully_sharded_tensor_parallel_models() -> None:
    run(4, _fully_sharded_tensor_parallel)
