"""The fused step of a plan: which launches it takes, in which order, on which numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from steepest.kernels.plans import Averaging, Elementwise, Equilibrated, Normalized, Plan
from steepest.kernels.triton import flat, sums, tiles
from steepest.kernels.triton.tables import Table, Tiling, tables, touched
from steepest.rounding import compute_dtype

DTYPES = {
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.float32: tl.float32,
    torch.float64: tl.float64,
}
CHUNKS = {torch.float32: Tiling(0, 2048, 2048), torch.float64: Tiling(0, 1024, 1024)}
TILES = {torch.float32: Tiling(128, 128, 16), torch.float64: Tiling(128, 128, 8)}
"""Blocks with two to four accesses of 16 bytes to every array in flight for each thread, which compiled for
sm_90 take 28 to 134 registers a thread and spill next to none. Chosen by that, and not yet by timing."""
NUMBERS = ("lr", "momentum", "beta2", "eps", "weight_decay")
PARTIALS = 1024
"""Partial sums of a matrix that are added at a time."""
PARTIAL_TILES = 8
"""Tiles whose partial row or column sums are added at a time."""
COUNTS = 128
"""Tensors whose corrections one program computes."""
WARPS = 4


@dataclass(frozen=True)
class TritonKernel:
    """One plan, on contiguous parameters of one dtype on one device.

    Arithmetic and state are float64 for float64 parameters and float32 for all others; norms are summed in
    float64, in a fixed order. A step never waits for the device and may be captured in a CUDA graph; a graph
    keeps the numbers it was captured with, unless they are tensors on the device.
    """

    plan: Plan
    batch_dims: int
    maximize: bool

    def __call__(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        states: Sequence[Mapping[str, Tensor]],
        hypers: Mapping[str, Any],
    ) -> None:
        """Update states and weights."""
        plan, device, dtype, work = self.plan, params[0].device, params[0].dtype, compute_dtype(params[0])
        averaging = plan.averaging
        square = plan.square if isinstance(plan, Elementwise) else None
        corrected = bool((averaging and averaging.corrected) or (square and square.corrected))
        corrected = corrected and not isinstance(plan, Normalized)  # it cancels in the direction
        grads = [grad.contiguous() for grad in grads]
        counts = corrected or bool(averaging and averaging.from_first)
        of = touched(params, grads, states, averaging and averaging.buffer, square and square.buffer, counts)
        batch_dims = None if isinstance(plan, Elementwise) else self.batch_dims
        tiling = (TILES if isinstance(plan, Equilibrated) and plan.axis != "none" else CHUNKS)[work]
        with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            for table in tables(of, batch_dims, tiling, device):
                step = Step(self, table, tiling, dtype, hypers)
                corrections = step.corrections() if corrected else table.words
                if isinstance(plan, Elementwise):
                    step.elementwise(plan, corrections)
                elif isinstance(plan, Equilibrated) and plan.axis != "none":
                    step.equilibrated(plan, corrections)
                else:
                    step.scaled(plan, corrections)


class Step:
    """The launches of one step on one table."""

    def __init__(
        self,
        kernel: TritonKernel,
        table: Table,
        tiling: Tiling,
        dtype: torch.dtype,
        hypers: Mapping[str, Any],
    ) -> None:
        plan = kernel.plan
        averaging = plan.averaging
        self.table, self.tiling, self.hypers = table, tiling, hypers
        self.vector = vector(hypers, table.words.device)
        self.averaging = averaging or Averaging("heavy_ball", "")
        self.square = plan.square if isinstance(plan, Elementwise) else None
        self.rows = {"table": table.words, "count": table.count}
        self.data = {
            "DTYPE": DTYPES[dtype],
            "GRAD_DTYPE": DTYPES[table.grad_dtype],
            "WORK": DTYPES[torch.float64 if dtype == torch.float64 else torch.float32],
            "ALIGNED": table.aligned,
            "MAXIMIZE": kernel.maximize,
            "DECAY": plan.decay,
        }
        self.momentum = {
            "AVERAGING": averaging.kind if averaging else "none",
            "NESTEROV": self.averaging.nesterov,
            "FROM_FIRST": self.averaging.from_first,
        }

    def corrections(self) -> Tensor:
        """Return the bias corrections of every tensor, shape (count, 2)."""
        count, square = self.table.count, self.square
        corrections = self.table.words.new_empty(2 * count, dtype=torch.float64)
        launch(
            flat.correct,
            -(-count // COUNTS),
            **self.rows,
            **self.numbers("momentum", "beta2"),
            corrections=corrections,
            NESTEROV=self.averaging.nesterov,
            EXPONENT=float(square.power) if square and square.placement != "inside" else 1.0,
            BLOCK=COUNTS,
        )
        return corrections

    def elementwise(self, plan: Elementwise, corrections: Tensor) -> None:
        """One launch."""
        square = plan.square
        launch(
            flat.elementwise,
            self.table.programs,
            **self.rows,
            **self.numbers(*NUMBERS),
            **self.data,
            **self.momentum,
            corrections=corrections,
            factor=plan.factor,
            CORRECTED=self.averaging.corrected,
            STATISTIC=square.buffer if square else "none",
            EXPONENT=float(square.power) if square else 1.0,
            PLACEMENT=square.placement if square else "outside",
            SQUARE_CORRECTED=bool(square and square.corrected),
            SIGN=plan.sign,
            BLOCK=self.tiling.block,
        )

    def scaled(self, plan: Normalized | Equilibrated, corrections: Tensor) -> None:
        """Measure every matrix, then move: three launches."""
        programs, after = self.table.programs, isinstance(plan, Equilibrated)
        squares = self.partials(1)
        launch(
            flat.measure,
            programs,
            **self.rows,
            **self.numbers("momentum", "weight_decay"),
            **self.data,
            **{**self.momentum, **({"AVERAGING": "none"} if after else {})},
            squares=squares,
            BLOCK=self.tiling.block,
        )
        launch(
            flat.move,
            programs,
            **self.rows,
            **self.numbers("lr", "momentum", "weight_decay"),
            **self.data,
            **self.momentum,
            steps=self.steps(squares, squares, plan),
            corrections=corrections,
            CORRECTED=self.averaging.corrected and after,
            AFTER=after,
            BLOCK=self.tiling.block,
        )

    def equilibrated(self, plan: Equilibrated, corrections: Tensor) -> None:
        """Three passes over the gradient, with a small launch between each two."""
        tiling, programs = self.tiling, self.table.programs
        sides = {"TALL": tiling.tall, "WIDE": tiling.wide}
        energies, squares = self.partials(1), self.partials(1)
        partial_sums = {
            "partial_rows": self.partials(tiling.tall),
            "partial_columns": self.partials(tiling.wide),
        }
        launch(
            tiles.sums,
            programs,
            **self.rows,
            **self.numbers("weight_decay"),
            **self.data,
            **partial_sums,
            **sides,
            energies=energies,
            BLOCK=tiling.block,
        )
        launch(tiles.norms, programs, **self.rows, **partial_sums, **sides, BLOCK=PARTIAL_TILES)
        launch(
            tiles.equilibrate,
            programs,
            **self.rows,
            **self.numbers("eps", "weight_decay"),
            **self.data,
            **partial_sums,
            **sides,
            squares=squares,
            shift=plan.shift,
            AXIS=plan.axis,
            BLOCK=tiling.block,
        )
        launch(
            tiles.descend,
            programs,
            **self.rows,
            **self.numbers("lr", "momentum", "eps", "weight_decay"),
            **self.data,
            **self.momentum,
            **partial_sums,
            **sides,
            steps=self.steps(squares, energies, plan),
            corrections=corrections,
            shift=plan.shift,
            CORRECTED=self.averaging.corrected,
            AXIS=plan.axis,
            BLOCK=tiling.block,
        )

    def steps(self, squares: Tensor, energies: Tensor, plan: Normalized | Equilibrated) -> Tensor:
        """Return divisor and length of the step of every matrix, shape (matrices, 2)."""
        steps = squares.new_empty(2 * self.table.matrices)
        launch(
            sums.finish,
            self.table.matrices,
            **self.rows,
            **self.numbers("eps"),
            squares=squares,
            energies=energies,
            steps=steps,
            factor=plan.factor if isinstance(plan, Normalized) else 1.0,
            FLOOR=isinstance(plan, Equilibrated),
            TALL=self.tiling.tall,
            WIDE=self.tiling.wide,
            BLOCK=PARTIALS,
        )
        return steps

    def partials(self, length: int) -> Tensor:
        """Return uninitialised float64 numbers, so many for every program."""
        return self.table.words.new_empty(self.table.programs * length, dtype=torch.float64)

    def numbers(self, *names: str) -> dict[str, Any]:
        """Return numbers of the step as arguments of a kernel."""
        if self.vector is not None:
            return {"numbers": self.vector, **dict.fromkeys(names, 0.0), "ON_DEVICE": True}
        by_value = {name: float(self.hypers.get(name, 0.0)) for name in names}
        return {"numbers": self.table.words, **by_value, "ON_DEVICE": False}  # the pointer is not read


def launch(kernel: Any, programs: int, **arguments: Any) -> None:
    """Launch a kernel."""
    kernel[(programs,)](**arguments, num_warps=WARPS, enable_fp_fusion=True)


def vector(hypers: Mapping[str, Any], device: torch.device) -> Tensor | None:
    """Return the numbers of a step as a float64 vector on the device if one of them is a tensor."""
    values = [hypers.get(name, 0.0) for name in NUMBERS]
    if not any(isinstance(value, Tensor) for value in values):
        return None
    like = {"dtype": torch.float64, "device": device}
    return torch.stack(
        [v.to(**like).reshape(()) if isinstance(v, Tensor) else torch.full((), v, **like) for v in values]
    )
