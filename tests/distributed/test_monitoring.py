"""What a monitor tells of shards is what it tells of whole parameters."""

import pytest
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard
from torch.nn import Parameter

import steepest
from distributed.harness import run
from distributed.parity import placed_like, sharded
from toys import MAKERS, give_gradients, parameters


def _told(name, batch_dims, shapes):
    """The values of the third step on shards, and those on one process."""
    mesh, whole = init_device_mesh("cpu", (2,)), parameters(shapes)
    parts = [Parameter(sharded(p.detach().clone(), mesh, [Shard(0)])) for p in whole]
    optimizers = [MAKERS[name]([{"params": params, "batch_dims": batch_dims}]) for params in (parts, whole)]
    told: list[dict[str, float]] = [{}, {}]
    for optimizer, values in zip(optimizers, told, strict=True):
        steepest.Monitor(
            optimizer, lambda found, _, values=values: values.update(found), every=1, spectra=True
        )
    for seed in range(3):
        give_gradients(whole, seed)
        for p, part in zip(whole, parts, strict=True):
            assert p.grad is not None
            part.grad = placed_like(part, p.grad)
        for optimizer in optimizers:
            optimizer.step()
    return told


@pytest.mark.parametrize(
    ("name", "batch_dims", "shapes"),
    [
        ("AdamW", 0, [(6, 5), (7, 4), (3,)]),
        ("Muon", 0, [(6, 5), (7, 4)]),
        ("Shampoo", 1, [(4, 5, 3), (3, 6, 4)]),
    ],
)
def test_values_are_of_all_shards(name, batch_dims, shapes):
    for found, expected in run(2, _told, name, batch_dims, shapes):
        assert found == pytest.approx(expected, rel=1e-9)
        assert expected["optimizer/group0/update_rms"] > 0
