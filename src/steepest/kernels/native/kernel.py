"""A plan as a call of the compiled library: one call for all parameters of a bucket."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Size, Tensor

from steepest.kernels.native.finite import Extents
from steepest.kernels.native.library import Library
from steepest.kernels.native.scratch import areas
from steepest.kernels.plans import Elementwise, Equilibrated, Normalized, Plan
from steepest.rounding import compute_dtype
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
FIELDS = 9
"""Of csrc/abi.h's Tensor, 64 bits each."""
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
    """One pass over state and weights. :func:`kernel_for` makes one of each kind; identity compares."""

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
        sums: Sequence[int] | None = None,
    ) -> None:
        """Update states and weights.

        ``sums`` are addresses of what a check has left of gradients for which :meth:`asks` was asked, else 0.
        """
        plan, library = self.plan, self.library
        average = plan.averaging.buffer if plan.averaging else None
        square = plan.square.buffer if isinstance(plan, Elementwise) and plan.square else None
        arithmetic = compute_dtype(params[0])
        grads, types = _readable(grads, params[0].dtype, arithmetic)
        extents = [_extents(param.shape, self.batch_dims) for param in params]
        matrices, rows, columns = zip(*extents, strict=True)
        table = array("q", bytes(8 * FIELDS * len(params)))
        for field, values in enumerate(
            (
                [param.data_ptr() for param in params],
                [grad.data_ptr() for grad in grads],
                _pointers(average, states, params, arithmetic),
                _pointers(square, states, params, arithmetic),
                sums,
                matrices,
                rows,
                columns,
                types,
            )
        ):
            if values is not None:
                table[field::FIELDS] = array("q", values)
        recipe = recipe_of(plan, self.maximize)
        for name in NUMBERS[1:]:
            setattr(recipe, name, float(hypers.get(name, 0.0)))
        steps = array("d", [state["step"].item() for state in states]) if _counts(plan) else None
        threads = torch.get_num_threads()
        high, wide = max(rows), max(columns)
        scratch = None if isinstance(plan, Elementwise) else areas(library, high, wide, threads)
        library.step(
            ctypes.byref(recipe),
            table.buffer_info()[0],
            None if steps is None else steps.buffer_info()[0],
            len(params),
            None if scratch is None else scratch.data_ptr(),
            high,
            wide,
            threads,
        )
        # What autograd saved of these weights is no longer what it was.
        torch.autograd.graph.increment_version(params)

    def asks(self, param: Tensor, grad: Tensor) -> Extents | None:
        """Return as which matrices a check should measure this gradient, if a step begins with that."""
        plan = self.plan
        if not isinstance(plan, Equilibrated) or plan.axis == "none" or plan.decay == "l2":
            return None
        return _extents(param.shape, self.batch_dims) if (param.dtype, grad.dtype) in TYPES else None


kernel_for = lru_cache(maxsize=None)(NativeKernel)
"""Return the one kernel of these choices."""


def _counts(plan: Plan) -> bool:
    """Return whether a plan's numbers depend on the count of steps."""
    average = plan.averaging
    return bool(average and (average.corrected or average.from_first)) or bool(
        isinstance(plan, Elementwise) and plan.square and plan.square.corrected
    )


@lru_cache(maxsize=4096)
def _extents(shape: Size, batch_dims: int) -> tuple[int, int, int]:
    return stack_shape(shape, batch_dims)


def _readable(
    grads: Sequence[Tensor], dtype: torch.dtype, arithmetic: torch.dtype
) -> tuple[Sequence[Tensor], list[int]]:
    """Return gradients as the library reads them, and the numbers of their types."""
    found = [TYPES.get((dtype, grad.dtype)) for grad in grads]
    if None in found:
        grads = [
            grad if known is not None else grad.to(arithmetic)
            for grad, known in zip(grads, found, strict=True)
        ]
        found = [TYPES[dtype, grad.dtype] for grad in grads]
    return [grad if grad.is_contiguous() else grad.contiguous() for grad in grads], cast(list[int], found)


def _pointers(
    name: str | None, states: Sequence[Mapping[str, Tensor]], params: Sequence[Tensor], dtype: torch.dtype
) -> list[int] | None:
    """Return where a state lies, or raise for one that raw pointers would misread."""
    if name is None:
        return None
    buffers = [state[name] for state in states]
    for buffer, param in zip(buffers, params, strict=True):
        if (
            buffer.dtype is not dtype
            or buffer.numel() != param.numel()
            or not buffer.is_cpu
            or not buffer.is_contiguous()
        ):
            raise RuntimeError(
                f"state {name!r} of a parameter of shape {tuple(param.shape)} must be contiguous {dtype} of "
                f"that shape on the CPU, got {buffer.dtype} of shape {tuple(buffer.shape)} on "
                f"{buffer.device}; fused=False takes it as it is"
            )
    return [buffer.data_ptr() for buffer in buffers]
