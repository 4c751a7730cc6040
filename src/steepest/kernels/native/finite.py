"""Whether tensors are finite: one read of their memory, for a whole list in one call."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import torch
from torch import Tensor

from steepest.kernels.native.library import Unavailable, load

FORMATS = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}


def all_finite(tensors: Iterable[Tensor]) -> tuple[bool, list[Tensor]]:
    """Return whether all contiguous tensors on the CPU are finite, and the tensors that were not looked at.

    Reads from the last to the first and stops at the first chunk that is not finite.
    """
    library = load()
    if isinstance(library, Unavailable) or torch.compiler.is_compiling():
        return True, list(tensors)
    table: list[int] = []
    rest: list[Tensor] = []
    for tensor in tensors:
        known = FORMATS.get(tensor.dtype)
        if known is None or type(tensor) is not Tensor or not tensor.is_cpu or not tensor.is_contiguous():
            rest.append(tensor)
        else:
            table += (tensor.data_ptr(), tensor.numel(), known)
    if not table:
        return True, rest
    entries = array("q", table)
    address, length = entries.buffer_info()
    return bool(library.all_finite(address, length // 3, torch.get_num_threads())), rest
