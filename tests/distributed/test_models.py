"""Models under fully_shard, tensor parallelism and both follow the single process."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from distributed.harness import run
from distributed.parity import difference, whole_of
from toys import MAKERS

NAMES = ["ANDI", "AdamW", "ClippedScion", "Muon"]
"""One for each way to step: with sums, entry by entry, with a number of the network, on owners."""


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 6, 3), nn.Flatten(), nn.Linear(18, 8), nn.Tanh(), nn.Linear(8, 3), nn.Linear(3, 1)
    ).double()


def _tensor_parallel(net: nn.Module, mesh) -> None:
    parallelize_module(net, mesh, {"2": ColwiseParallel(), "4": RowwiseParallel()})


def _train(name, kind) -> tuple[float, float]:
    """Return how far the weights are from one process after 6 steps, and how far they came."""
    world = dist.get_world_size()
    plain, net = _net(), _net()
    start = [p.detach().clone() for p in plain.parameters()]
    shares, share = world, dist.get_rank()
    if kind == "hybrid":
        mesh = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("copies", "shards"))
        fully_shard(net, mesh=mesh)
    elif kind == "both":
        mesh = init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("data", "tensor"))
        _tensor_parallel(net, mesh["tensor"])
        fully_shard(net, mesh=mesh["data"])
        shares, share = 2, mesh.get_local_rank("data")
    else:
        mesh = init_device_mesh("cpu", (world,))
        for layer in net.children():
            if kind == "layers" and list(layer.parameters()):
                fully_shard(layer, mesh=mesh)
        fully_shard(net, mesh=mesh)
    optimizers = [(plain, MAKERS[name](plain.parameters())), (net, MAKERS[name](net.parameters()))]
    generator = torch.Generator().manual_seed(1)
    for _ in range(6):
        x = torch.randn(8, 2, 5, dtype=torch.float64, generator=generator)
        for model, optimizer in optimizers:
            batch = x if model is plain else x.chunk(shares)[share]
            (model(batch) - batch.sum((1, 2)).unsqueeze(1)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    expected = [p.detach() for p in plain.parameters()]
    return difference([whole_of(p) for p in net.parameters()], expected), difference(start, expected)


def _train_all(kind) -> dict[str, tuple[float, float]]:
    return {name: _train(name, kind) for name in NAMES}


@pytest.mark.parametrize(("world", "kind"), [(4, "layers"), (4, "hybrid"), (4, "both"), (2, "whole")])
def test_a_model_follows_one_process(world, kind) -> None:
    for rank in run(world, _train_all, kind):
        for name, (found, moved) in rank.items():
            assert found <= 1e-8, name
            assert moved > 1e-3, name
