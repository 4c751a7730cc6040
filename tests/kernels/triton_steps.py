"""One step by the Triton kernels and by the formulas they must agree with, over states of their own.

Where there is no GPU the kernels run in Triton's interpreter. Blocks are small, so that small tensors have
several of them in every direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from steepest.apply import apply_
from steepest.kernels.triton import kernel as kernels
from steepest.kernels.triton import triton_kernel
from steepest.kernels.triton.tables import Tiling
from steepest.rounding import compute_dtype
from steepest.rule import Rule
from steepest.views import as_stack, stack_shape

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
HYPERS = {"lr": 0.1, "momentum": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.2}
TILE, CHUNK = Tiling(16, 64, 8), Tiling(0, 256, 256)
State = dict[str, Tensor]

if DEVICE.type == "cpu":
    from interpreted import mend

    mend()


def small_blocks(monkeypatch: Any) -> None:
    """Let kernels work in small blocks."""
    for dtype in (torch.float32, torch.float64):
        monkeypatch.setitem(kernels.TILES, dtype, TILE)
        monkeypatch.setitem(kernels.CHUNKS, dtype, CHUNK)


def random(
    shapes: Sequence[tuple[int, ...]], dtype: torch.dtype, seed: int, scale: float = 1
) -> list[Tensor]:
    """Return normal tensors, the same numbers for every dtype and device."""
    source = torch.Generator().manual_seed(seed)
    numbers = [torch.randn(shape, generator=source, dtype=torch.float64) for shape in shapes]
    return [x.to(dtype).to(DEVICE) for x in numbers]


def start(rule: Rule, param: Tensor, batch_dims: int = 0) -> State:
    """Return the state before the first step."""
    shaped = rule.for_shape(param.shape[batch_dims:])
    shape = stack_shape(param.shape, batch_dims)
    state = shaped.init(torch.zeros(shape, dtype=compute_dtype(param), device=param.device))
    state = {name: value.reshape(param.shape) for name, value in state.items()}
    if shaped.needs_step:
        state["step"] = torch.zeros((), device=param.device)
    return state


@torch.no_grad()
def fused_step(
    rule: Rule,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    states: Sequence[State],
    hypers: Mapping[str, Any] = HYPERS,
    maximize: bool = False,
    batch_dims: int = 0,
) -> None:
    """Take a step as the engine does: one call for all that share a kernel."""
    buckets: dict[Any, list[int]] = {}
    group = {"maximize": maximize, "batch_dims": batch_dims}
    for i, param in enumerate(params):
        kernel = triton_kernel(rule, param, group)
        assert kernel is not None, f"no kernel for {rule} on {param.shape}"
        buckets.setdefault((kernel, param.dtype), []).append(i)
        if "step" in states[i]:
            states[i]["step"] += 1
    for (kernel, _), members in buckets.items():
        kernel(
            [params[i] for i in members], [grads[i] for i in members], [states[i] for i in members], hypers
        )


@torch.no_grad()
def plain_step(
    rule: Rule,
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    states: Sequence[State],
    hypers: Mapping[str, Any] = HYPERS,
    maximize: bool = False,
    batch_dims: int = 0,
) -> None:
    """Take a step by the rule's own formulas."""
    for param, grad, state in zip(params, grads, states, strict=True):
        shaped = rule.for_shape(param.shape[batch_dims:])
        own = dict(hypers)
        if "step" in state:
            state["step"] += 1
            own["step"] = state["step"].item()
        x = grad.to(compute_dtype(param))
        x = -x if maximize else x
        if rule.decay == "l2":
            x = x + hypers["weight_decay"] * param.to(x.dtype)
        views = {name: as_stack(value, batch_dims) for name, value in state.items() if name != "step"}
        update = shaped.update(as_stack(x, batch_dims), views, own)
        assert update is not None
        apply_(param, update.direction.reshape(param.shape), hypers, shaped, batch_dims)


def difference(ours: Tensor, expected: Tensor) -> float:
    """Return |ours - expected| / |expected|, in units of the largest entry so that nothing overflows."""
    largest = expected.double().abs().max().clamp(min=1e-300)
    error = (ours.double() / largest - expected.double() / largest).norm()
    return (error / (expected.double() / largest).norm().clamp(min=1e-300)).item()
