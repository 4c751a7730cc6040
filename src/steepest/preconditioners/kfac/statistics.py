"""Sums over rows, and what is gathered of one layer between two steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from steepest.linalg.precision import at_least_float32


def second_moment(rows: Tensor, ones: bool = False) -> Tensor:
    """Return the sum over rows of r r^T, (d, d), in float32 or better; ``ones`` appends a 1 to every row.

    Rows so large that their squares would overflow (1e15 in float32) are scaled down together, so that the
    sum saturates instead.
    """
    rows = rows.to(at_least_float32(rows.dtype))
    if ones:
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
    if rows.numel():
        largest = 1e-4 * math.sqrt(torch.finfo(rows.dtype).max / len(rows))
        rows = rows / (rows.abs().amax() / largest).clamp_min(1)
    return rows.mT @ rows


@dataclass
class Batch:
    """Sums over every call of a layer whose gradient has arrived since the last step."""

    inputs: Tensor | None = None
    rows: Tensor | int = 0
    outputs: Tensor | None = None
    examples: dict[int, int | Tensor] = field(default_factory=dict)
    """Examples by forward pass: several calls in one pass see the same ones."""

    def add(self, inputs: Tensor, rows: Tensor | int, outputs: Tensor | None, forward: int, n: int) -> None:
        """Add one call."""
        self.inputs = inputs if self.inputs is None else self.inputs + inputs
        self.rows = self.rows + rows
        if outputs is not None:
            self.outputs = outputs if self.outputs is None else self.outputs + outputs
        self.examples[forward] = max(n, self.examples.get(forward, 0))

    def means(self, averaged_loss: bool) -> tuple[Tensor | None, Tensor] | None:
        """Return the covariances (A, B), stacks of one, or None if no call was seen.

        A is of one example's output gradient, B of one row's input. With d the gradient of what was
        differentiated and N examples, the gradient of one example's loss is N d for a mean over examples and
        d for a sum; A is its mean over examples, summed over positions.
        """
        if self.inputs is None:
            return None
        n = sum(self.examples.values())
        outputs = self.outputs
        if outputs is not None:
            outputs = (outputs * n if averaged_loss else outputs / n)[None]
        return outputs, (self.inputs / self.rows)[None]
