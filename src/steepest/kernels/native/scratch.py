"""Working memory of the compiled library, kept by each Python thread from step to step."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from steepest.kernels.native.library import Library

_own = threading.local()


def areas(library: Library, rows: int, columns: int, threads: int) -> Tensor:
    """Return an area for each thread, for matrices of up to so many rows and columns."""
    return _kept("areas", threads * library.scratch_bytes(rows, columns) + 64)


def sums(count: int) -> Tensor:
    """Return room for so many float64 numbers; what was in it is lost."""
    return _kept("sums", 8 * count)


def _kept(name: str, size: int) -> Tensor:
    held = getattr(_own, name, None)
    if held is None or held.numel() < size:
        held = torch.empty(size, dtype=torch.uint8, device="cpu")
        setattr(_own, name, held)
    return held
