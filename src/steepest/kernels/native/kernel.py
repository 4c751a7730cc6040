"""A plan as a call of the compiled library: one call for all parameters of a bucket."""

from __future__ import annotations

import ctypes
import threading
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Size, Tensor

from steepest.kernels.native.library import Library
from steepest.kernels.plans import Elementwise, Equilibrated, Normalized, Plan
from steepest.views import stack_shape

KINDS = (Elementwise, Normalized, Equilibrated)
AVERAGINGS = (None, "heavy_ball", "ema")
SQUARES = (None, "exp_avg_sq", "sum")
POWERS = (1.0, 1 / 2, 1 / 3)
PLACEMENTS = ("outside", "uncorrected", "inside", "floor")
DECAYS = ("decoupled", "after", "l2", "cautious")
AXES = ("both", "rows", "columns", "none")
TYPES = {
    (torch.float32, torch.float32): 0,
    (torch.float64, torch.float64): 1,
    (torch.bfloat16, torch.bfloat16): 2,
    (torch.bfloat16, torch.float32): 3,
}
"""The library's numbers for what plans name; types are those of a parameter and its gradient."""
CHOICES = (
    *("kind", "averaging", "nesterov", "corrected", "from_first"),
    *("square", "power", "placement", "square_corrected"),
    *("sign", "decay", "maximize", "axis", "shift"),
)
NUMBERS = ("factor", "lr", "weight_decay", "momentum", "beta2", "eps")


class Recipe(ctypes.Structure):
    """A plan and its numbers, as csrc/abi.h declares it."""

    _fields_ = (*[(name, ctypes.c_int32) for name in CHOICES], *[(name, ctypes.c_double) for name in NUMBERS])


def computes(plan: Plan) -> bool:
    """Return whether the library knows every choice of a plan."""
    return not isinstance(plan, Elementwise) or plan.square is None or plan.square.power in POWERS


def recipe_of(plan: Plan, maximize: bool) -> Recipe:
    """Return a plan's choices as the library's numbers."""
    recipe = Recipe(
        kind=KINDS.index(type(plan)), decay=DECAYS.index(plan.decay), maximize=maximize, factor=1.0
    )
    if averaging := plan.averaging:
        recipe.averaging = AVERAGINGS.index(averaging.kind)
        recipe.nesterov, recipe.corrected = averaging.nesterov, averaging.corrected
        recipe.from_first = averaging.from_first
    if isinstance(plan, Equilibrated):
        recipe.axis, recipe.shift = AXES.index(plan.axis), plan.shift
    else:
        recipe.factor = plan.factor
    if isinstance(plan, Elementwise):
        recipe.sign = plan.sign
        if square := plan.square:
            recipe.square, recipe.power = SQUARES.index(square.buffer), POWERS.index(square.power)
            recipe.placement = PLACEMENTS.index(square.placement)
            recipe.square_corrected = square.corrected
    return recipe


@dataclass(frozen=True, eq=False)
class NativeKernel:
    """One pass over state and weights; :func:`kernel` makes one of each kind, which compares by identity."""

    plan: Plan
    maximize: bool
    batch_dims: int
    library: Library

    def __call__(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        states: Sequence[Mapping[str, Tensor]],
        hypers: Mapping[str, Any],
    ) -> None:
        """Update states and weights."""
        plan, library = self.plan, self.library
        average = plan.averaging.buffer if plan.averaging else None
        square = plan.square.buffer if isinstance(plan, Elementwise) and plan.square else None
        dtype, arithmetic = params[0].dtype, _arithmetic(params[0].dtype)
        rows = columns = 0
        table: list[int] = []
        kept: list[Tensor] = []
        for param, own_grad, state in zip(params, grads, states, strict=True):
            grad = own_grad
            types = TYPES.get((dtype, grad.dtype))
            if types is None:
                grad = grad.to(arithmetic)
                types = TYPES[dtype, arithmetic]
            if not grad.is_contiguous():
                grad = grad.contiguous()
            if grad is not own_grad:
                kept.append(grad)  # until the library has read it
            k, m, n = _extents(param.shape, self.batch_dims)
            rows, columns = max(rows, m), max(columns, n)
            table += (
                param.data_ptr(),
                grad.data_ptr(),
                _pointer(state[average], arithmetic, average, param) if average else 0,
                _pointer(state[square], arithmetic, square, param) if square else 0,
                k,
                m,
                n,
                types,
            )
        recipe = recipe_of(plan, self.maximize)
        for name in NUMBERS[1:]:
            setattr(recipe, name, float(hypers.get(name, 0.0)))
        steps = array("d", [state["step"].item() for state in states]) if _counts(plan) else None
        threads = torch.get_num_threads()
        scratch = None if isinstance(plan, Elementwise) else _scratch(library, rows, columns, threads)
        tensors = array("q", table)
        library.step(
            ctypes.byref(recipe),
            tensors.buffer_info()[0],
            None if steps is None else steps.buffer_info()[0],
            len(params),
            None if scratch is None else scratch.data_ptr(),
            rows,
            columns,
            threads,
        )
        # What autograd saved of these weights is no longer what it was.
        torch.autograd.graph.increment_version(params)


kernel = lru_cache(maxsize=None)(NativeKernel)
"""Return the one kernel of these choices."""


def _counts(plan: Plan) -> bool:
    """Return whether a plan's numbers depend on the count of steps."""
    average = plan.averaging
    return bool(average and (average.corrected or average.from_first)) or bool(
        isinstance(plan, Elementwise) and plan.square and plan.square.corrected
    )


def _arithmetic(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@lru_cache(maxsize=4096)
def _extents(shape: Size, batch_dims: int) -> tuple[int, int, int]:
    return stack_shape(shape, batch_dims)


def _pointer(buffer: Tensor, dtype: torch.dtype, name: str, param: Tensor) -> int:
    """Return a state's address, or raise for one that raw pointers would misread."""
    if (
        buffer.dtype is not dtype
        or buffer.numel() != param.numel()
        or not buffer.is_cpu
        or not buffer.is_contiguous()
    ):
        raise RuntimeError(
            f"state {name!r} of a parameter of shape {tuple(param.shape)} must be contiguous {dtype} of that "
            f"shape on the CPU, got {buffer.dtype} of shape {tuple(buffer.shape)} on {buffer.device}; "
            "fused=False takes it as it is"
        )
    return buffer.data_ptr()


_own = threading.local()


def _scratch(library: Library, rows: int, columns: int, threads: int) -> Tensor:
    """Return working memory of this Python thread, kept from step to step."""
    size = threads * library.scratch_bytes(rows, columns) + 64
    held = getattr(_own, "scratch", None)
    if held is None or held.numel() < size:
        held = _own.scratch = torch.empty(size, dtype=torch.uint8)
    return held
