"""The state that sharded parameters have before their first step does not show."""

from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.nn import Parameter

from distributed.harness import run
from steepest import Muon, SPlus


def _ones(*shape: int) -> Any:
    mesh = init_device_mesh("cpu", (2,))
    return Parameter(distribute_tensor(torch.ones(shape), mesh, [Shard(0)]))


def _evaluates_at_the_weights() -> None:
    moved, still = _ones(6, 5), _ones(6, 5)
    optimizer = SPlus([moved, still])
    optimizer.eval()
    assert torch.equal(moved.full_tensor(), torch.ones(6, 5))
    optimizer.train()
    moved.grad = torch.ones_like(moved)
    optimizer.step()
    optimizer.eval()
    assert torch.equal(still.full_tensor(), torch.ones(6, 5))
    assert not torch.equal(moved.full_tensor(), torch.ones(6, 5))


def test_splus_evaluates_at_the_weights() -> None:
    run(2, _evaluates_at_the_weights)


def _refused_group() -> None:
    optimizer = Muon([_ones(6, 5)])
    with pytest.raises(ValueError, match="non-leaf"):
        optimizer.add_param_group({"params": [_ones(6, 5), 2 * _ones(6)]})
    assert len(optimizer.state) == len(optimizer.param_groups) == 1
    optimizer.state_dict()


def test_a_refused_group_leaves_no_state() -> None:
    run(2, _refused_group)
