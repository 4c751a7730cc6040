"""Rules on shards take the step of one process."""

import pytest
from torch.distributed.tensor import Replicate, Shard

from distributed import parity
from distributed.harness import run

LOCAL = [
    "ANDI",
    "ANDI gradient start",
    "Adam",
    "Adagrad",
    "AdamSANIA",
    "AdamW",
    "MADGRAD",
    "NormalizedSGD",
    "SignSGD",
    "Steepest",
    "Steepest diagonal rows",
    "Steepest equilibrated",
]
MESHES = {
    "rows": ((4,), (Shard(0),)),
    "columns": ((4,), (Shard(1),)),
    "hybrid": ((2, 2), (Replicate(), Shard(0))),
    "both": ((2, 2), (Shard(0), Shard(1))),
    "twice": ((2, 2), (Shard(0), Shard(0))),
}


def _all(names, mesh, placements, steps) -> dict[str, dict[str, float]]:
    return {name: parity.follow(name, mesh, placements, steps=steps) for name in names}


@pytest.mark.parametrize("mesh", MESHES)
def test_same_as_on_one_process(mesh: str) -> None:
    names = (
        LOCAL if mesh in ("rows", "columns") else ["ANDI", "AdamW", "NormalizedSGD", "Steepest diagonal rows"]
    )
    if mesh == "columns":
        names = [name for name in names if "gradient start" not in name]  # rolled columns need an owner
    for rank in run(4, _all, names, *MESHES[mesh], 20 if mesh == "rows" else 6):
        for name, found in rank.items():
            assert found["weights"] <= 1e-10, name
            assert found["state"] <= 1e-10, name


def test_two_ranks() -> None:
    for rank in run(2, _all, LOCAL, (2,), (Shard(0),), 20):
        assert all(found["weights"] <= 1e-10 for found in rank.values()), rank
