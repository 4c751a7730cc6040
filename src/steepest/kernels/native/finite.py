"""Whether tensors are finite: one read of their memory, for a whole list in one call.

Where a kernel begins its step with the lengths of a gradient's rows and columns, this read finds them too, so
that the check costs it nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from steepest.kernels.native.library import Unavailable, load
from steepest.kernels.native.scratch import areas, sums

FORMATS = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
HALF = FORMATS[torch.float16]
Extents = tuple[int, int, int]
"""How many matrices, of how many rows and columns."""


class Finding(NamedTuple):
    """What a check has found."""

    finite: bool
    rest: list[Tensor]
    """The tensors that were not looked at."""
    sums: list[int]
    """Where sums of squares lie that were asked for, else 0. They hold until this thread's next check."""


def all_finite(tensors: Iterable[Tensor], asked: Sequence[Extents | None] = ()) -> Finding:
    """Return whether all contiguous tensors on the CPU are finite.

    Reads from the last to the first and stops once something is not finite. ``asked`` has one entry for each
    tensor, or none: as which matrices it is to be read and the squares of their rows and columns summed.
    """
    library = load()
    tensors = list(tensors)
    asked = asked or [None] * len(tensors)
    found = [0] * len(tensors)
    if isinstance(library, Unavailable) or torch.compiler.is_compiling():
        return Finding(True, tensors, found)
    table: list[int] = []
    rest: list[Tensor] = []
    total, high, wide = sum(m * (r + c) for m, r, c in filter(None, asked)), 0, 0
    free = sums(total).data_ptr() if total else 0
    for i, (tensor, extents) in enumerate(zip(tensors, asked, strict=True)):
        known = FORMATS.get(tensor.dtype)
        if known is None or type(tensor) is not Tensor or not tensor.is_cpu or not tensor.is_contiguous():
            rest.append(tensor)
        elif extents is None or known == HALF:
            table += (tensor.data_ptr(), 0, 1, 1, tensor.numel(), known)
        else:
            matrices, rows, columns = extents
            table += (tensor.data_ptr(), free, matrices, rows, columns, known)
            found[i] = free
            free += 8 * matrices * (rows + columns)
            if rows > high:
                high = rows
            if columns > wide:
                wide = columns
    if not table:
        return Finding(True, rest, found)
    entries = array("q", table)
    address, length = entries.buffer_info()
    threads = torch.get_num_threads()
    scratch = areas(library, high, wide, threads) if wide else None
    finite = library.all_finite(
        address, length // 6, None if scratch is None else scratch.data_ptr(), high, wide, threads
    )
    return Finding(bool(finite), rest, found)
