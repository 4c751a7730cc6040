"""Blocks as matrices of their own: only by choice."""

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard
from torch.nn import Parameter

import steepest
from distributed.harness import run
from distributed.parity import difference, placed_like, sharded
from steepest.distributed import configure, counting
from steepest.distributed.layout import local
from toys import MAKERS, give_gradients, parameters

SHAPES = [(9, 5), (3, 8), (6,)]
NAMES = ["ANDI", "ClippedScion", "Muon", "Shampoo", "SOAP"]


def _blocks(name):
    """Return how far a rank's blocks are from those of an optimizer of its own, and the bytes of a step."""
    mesh = init_device_mesh("cpu", (4,))
    start = parameters(SHAPES)
    parts = [Parameter(sharded(p.detach().clone(), mesh, (Shard(0),))) for p in start]
    optimizer = MAKERS[name](parts, nonfinite="propagate")
    configure(optimizer, blocks=True)
    alone = [Parameter(local(p.detach()).clone()) for p in parts]
    single = MAKERS[name](alone, nonfinite="propagate")
    with counting() as traffic:
        for seed in range(6):
            give_gradients(start, seed)
            for whole, part, block in zip(start, parts, alone, strict=True):
                assert whole.grad is not None
                part.grad = placed_like(part, whole.grad)
                block.grad = local(part.grad).clone()
            optimizer.step()
            single.step()
    pairs = [(local(p.detach()), q.detach()) for p, q in zip(parts, alone, strict=True) if q.numel()]
    return difference([p for p, _ in pairs], [q for _, q in pairs]), traffic.sent


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ClippedScion"])
def test_every_block_is_a_matrix_of_its_own(name) -> None:
    for found, sent in run(4, _blocks, name):
        assert found <= 1e-12
        assert sent == 0


def test_the_network_stays_one() -> None:
    answers = run(4, _blocks, "ClippedScion")
    assert all(sent > 0 for _, sent in answers)
    assert any(found > 1e-6 for found, _ in answers), "the sum is of all ranks"


def _begins_anew():
    mesh = init_device_mesh("cpu", (2,))
    parts = [Parameter(sharded(torch.ones(6, 4), mesh, (Shard(0),)))]
    optimizer = steepest.Shampoo(parts)
    configure(optimizer, blocks=True)
    shapes = {name: tuple(value.shape) for name, value in optimizer.state[parts[0]].items()}
    configure(optimizer)
    return shapes, sorted(optimizer.state[parts[0]])


def test_state_follows_the_choice() -> None:
    for shapes, names in run(2, _begins_anew):
        assert any(shape == (3, 3) for shape in shapes.values()), shapes
        assert not any("factor" in name for name in names), names


def test_choices_are_checked() -> None:
    optimizer = steepest.Muon([Parameter(torch.ones(3, 3))])
    with pytest.raises(ValueError, match="traffic must be one of"):
        configure(optimizer, traffic=torch.int8)
    with pytest.raises(TypeError, match="blocks must be True or False, got 1"):
        configure(optimizer, blocks=1)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(TypeError, match="replicas must be a process group or None"):
        configure(optimizer, replicas="world")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(TypeError, match="optimizer must be one of steepest, got SGD"):
        configure(torch.optim.SGD([torch.ones(2)], 0.1))  # type: ignore[arg-type]  # wrong on purpose
    assert not dist.is_initialized()
