"""The same steps on shards as on one process, inside a worker."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import Placement
from torch.nn import Parameter

from steepest.distributed.layout import layout_of
from toys import MAKERS, give_gradients, parameters

SHAPES = [(7, 5), (3, 1000), (1, 1), (9,), (4, 3, 2, 2), (), (12, 12), (7, 5)]
"""Uneven and empty shards, dimensions smaller than the world, vectors, a convolution, a scalar."""


def sharded(tensor: Tensor, mesh: Any, placements: Sequence[Placement]) -> DTensor:
    """A tensor placed as asked, whole along what it has not the dimensions for."""
    fitting = [
        p if not isinstance(p, Shard) or p.dim < tensor.ndim else Shard(tensor.ndim - 1) for p in placements
    ]
    if not tensor.ndim:
        from torch.distributed.tensor import Replicate

        fitting = [Replicate() for _ in placements]
    return distribute_tensor(tensor, mesh, fitting)


def placed_like(param: Tensor, whole: Tensor) -> Tensor:
    """A tensor that every rank has whole, placed as a parameter is; sends nothing."""
    layout = layout_of(param)
    assert layout is not None
    return layout.wrap(layout.part(whole).clone(memory_format=torch.contiguous_format))


@torch.no_grad()
def difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference of any entry, relative to the largest of its tensor."""
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert bool(b.isfinite().all())
        worst = max(worst, float((a - b).abs().max() / b.abs().max().clamp(min=1e-300)))
        assert worst == worst, "not a number"
    return worst


def follow(
    make: str | Callable[..., Any],
    mesh_shape: tuple[int, ...],
    placements: Sequence[Placement],
    shapes: Sequence[Sequence[int]] = SHAPES,
    steps: int = 20,
    dtype: torch.dtype = torch.float64,
    **options: Any,
) -> dict[str, float]:
    """Return how far weights and state are from those of one process after ``steps``."""
    maker = MAKERS[make] if isinstance(make, str) else make
    mesh = init_device_mesh("cpu", mesh_shape)
    start = parameters(shapes, dtype)
    parts = [Parameter(sharded(p.detach().clone(), mesh, placements)) for p in start]
    optimizer = maker(parts, **options)
    gradients = parameters(shapes, dtype)
    for seed in range(steps):
        give_gradients(gradients, seed)
        for p, part in zip(gradients, parts, strict=True):
            assert p.grad is not None
            part.grad = placed_like(part, p.grad)
        optimizer.step()
    whole, state = one_process(make, maker, shapes, steps, dtype, options)
    assert difference(start, whole) > 1e-3, "nothing moved"
    return {
        "weights": difference([whole_of(p) for p in parts], whole),
        "state": max(
            (
                difference([whole_of(value)], [expected[name]])
                for part, expected in zip(parts, state, strict=True)
                for name, value in optimizer.state[part].items()
                if isinstance(value, DTensor) and bool(expected[name].any())
            ),
            default=0.0,
        ),
    }


def whole_of(tensor: Tensor) -> Tensor:
    """The whole of a distributed tensor, on every rank."""
    assert isinstance(tensor, DTensor)
    return tensor.full_tensor().detach()


_known: dict[object, tuple[list[Tensor], list[dict[str, Tensor]]]] = {}


def one_process(
    make: str | Callable[..., Any],
    maker: Callable[..., Any],
    shapes: Sequence[Sequence[int]],
    steps: int,
    dtype: torch.dtype,
    options: dict[str, Any],
) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Return weights and state after the same steps on whole parameters; the first rank computes them.

    They are remembered by name, so all ranks must ask.
    """
    key = (make, repr(shapes), steps, dtype, repr(options))
    first = dist.get_rank() == 0
    if first and (key not in _known or not isinstance(make, str)):
        whole = parameters(shapes, dtype)
        optimizer = maker(whole, **options)
        for seed in range(steps):
            give_gradients(whole, seed)
            optimizer.step()
        _known[key] = [p.detach() for p in whole], [dict(optimizer.state[p]) for p in whole]
    told: list[Any] = [_known[key] if first else None]
    dist.broadcast_object_list(told, src=0)
    return told[0]
