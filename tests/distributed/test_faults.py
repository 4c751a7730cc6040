"""A rank that is gone or late ends the step of the others with an error, in bounded time."""

import os
import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard
from torch.nn import Parameter

import steepest
from distributed.harness import run
from distributed.parity import placed_like, sharded
from steepest.distributed import collectives
from steepest.screening import check_whole


def _lose(make_name, collective, seconds):
    """Rank 1 ends, or sleeps for some seconds, when its step comes to a collective of this kind."""
    mesh = init_device_mesh("cpu", (2,))
    params = [Parameter(sharded(torch.randn(8, 6), mesh, (Shard(0),))) for _ in range(2)]
    optimizer = getattr(steepest, make_name)(params, lr=0.1)
    for p in params:
        p.grad = placed_like(p, torch.randn(8, 6))
    optimizer.step()
    collectives.TIMEOUT = timedelta(seconds=2)
    if dist.get_rank() == 1:

        def count(kind, *rest):
            if kind == collective:
                if seconds:
                    time.sleep(seconds)
                os._exit(1)

        collectives._count = count
    begin = time.monotonic()
    try:
        optimizer.step()
    except RuntimeError as error:
        return str(error), time.monotonic() - begin
    return "", 0.0


@pytest.mark.parametrize(
    ("make", "collective", "seconds"),
    [("NormalizedSGD", "all_reduce", 0), ("Muon", "all_to_all", 5)],
    ids=["dead before a sum", "late for an exchange"],
)
def test_a_lost_rank_is_an_error(make, collective, seconds) -> None:
    (message, took), _ = run(2, _lose, make, collective, seconds, lost={1})
    assert "over 2 ranks" in message
    assert took < 30


@pytest.mark.parametrize("mark", ["_is_flat_param", "_fsdp_flattened"])
def test_parameters_flattened_by_fsdp1_are_refused(mark) -> None:
    flat = Parameter(torch.ones(12))
    setattr(flat, mark, True)
    with pytest.raises(ValueError, match=r"parameter 'flat' of shape \(12,\) was flattened .*fully_shard"):
        steepest.AdamW([("flat", flat)])
    check_whole({"params": [Parameter(torch.ones(12))]}, 0)


def test_interleaved_and_partial_placements_are_refused() -> None:
    run(2, _refused)


def _refused() -> None:
    from torch.distributed.tensor import DTensor, Partial

    mesh = init_device_mesh("cpu", (2,))
    partial = DTensor.from_local(torch.ones(3), mesh, (Partial(),))
    with pytest.raises(ValueError, match="sharded or replicated"):
        steepest.AdamW([partial.requires_grad_()])
