"""Tables of tensors for kernels that serve many in one launch.

A table is a function of addresses and shapes alone, and these are the key it is kept under: one that fits is
never stale. Gradients that come back at the addresses they had cost no upload.

While a CUDA graph is captured, nothing kept is used. The table is then written by kernels that carry its
words as arguments, so that the graph holds it by value and depends on no memory that outlives the capture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from steepest.rounding import compute_dtype
from steepest.views import stack_shape

Addresses = tuple[int, int, int, int, int]
"""Of step, parameter, gradient, averaging and square buffer; 0 for what a plan does not have."""
Entry = tuple[Addresses, tuple[int, int, int], torch.dtype]
"""The addresses of a tensor, its shape as a stack (k, m, n), and the dtype of its gradient."""
WIDE_ACCESS = 16
"""Bytes of the widest access of one thread."""
WORTH_SPLITTING = 2**20
"""Up to this many entries, tensors that forbid wide accesses do not get launches of their own."""


@dataclass(frozen=True)
class Tiling:
    """How programs share a matrix: tiles of ``tall`` rows and ``wide`` columns, or chunks of ``wide``.

    ``block`` is what a program holds at a time: rows of a tile, entries of a chunk. ``tall`` = 0 is chunks.
    """

    tall: int
    wide: int
    block: int

    def programs(self, m: int, n: int) -> int:
        """Return how many programs a matrix takes."""
        return -(-m // self.tall) * -(-n // self.wide) if self.tall else -(-m * n // self.wide)

    def aligns(self, m: int, n: int, entries: int) -> bool:
        """Return whether the rows of tiles, or the matrices chunks go through, are so many entries long."""
        return (n if self.tall else m * n) % entries == 0


@dataclass(frozen=True)
class Table:
    """What one launch works on: ``count`` rows of ``words`` for as many tensors."""

    words: Tensor
    count: int
    programs: int
    matrices: int
    grad_dtype: torch.dtype
    aligned: bool


def tables(
    entries: tuple[Entry, ...], dtype: torch.dtype, tiling: Tiling, device: torch.device
) -> list[Table]:
    """Return the tables of one step of parameters of one dtype on one device."""
    if device.type != "cuda":
        return _tables(entries, dtype, tiling, device, 0)
    if torch.cuda.is_current_stream_capturing():
        return _tables.__wrapped__(entries, dtype, tiling, device, 0)
    # Another stream would not wait for this one's upload.
    return _tables(entries, dtype, tiling, device, torch.cuda.current_stream(device).cuda_stream)


def entries_of(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    states: Sequence[Mapping[str, Tensor]],
    buffers: tuple[str | None, str | None],
    counts: bool,
    batch_dims: int | None,
) -> tuple[Entry, ...]:
    """Return what a step touches, or raise if state is not what :mod:`steepest.views` makes.

    ``buffers`` names the averaging and the square buffer, ``counts`` says whether ``step`` is read. Without
    ``batch_dims`` tensors are rows of entries. Parameters and gradients must be contiguous.
    """
    dtype, device = compute_dtype(params[0]), params[0].device
    result = []
    for param, grad, state in zip(params, grads, states, strict=True):
        size = param.numel()
        if not size:
            continue
        step = 0
        if counts:
            own = state["step"]
            if own.dtype != torch.float32 or own.device != device:
                raise _unfit("step", own, torch.float32, param)
            step = own.data_ptr()
        averaging, square = 0, 0
        for name in buffers:
            if name is None:
                continue
            own = state[name]
            if own.dtype != dtype or own.device != device or own.numel() != size or not own.is_contiguous():
                raise _unfit(name, own, dtype, param)
            if name == buffers[0]:
                averaging = own.data_ptr()
            else:
                square = own.data_ptr()
        shape = (1, 1, size) if batch_dims is None else stack_shape(param.shape, batch_dims)
        result.append(((step, param.data_ptr(), grad.data_ptr(), averaging, square), shape, grad.dtype))
    return tuple(result)


def _unfit(name: str, value: Tensor, dtype: torch.dtype, param: Tensor) -> RuntimeError:
    return RuntimeError(
        f"state[{name!r}] must be a contiguous {dtype} tensor on {param.device} to fit a parameter of shape "
        f"{tuple(param.shape)}; got {value.dtype} of shape {tuple(value.shape)} on {value.device}. "
        "Use fused=False for state of another kind"
    )


@lru_cache(maxsize=64)
def _tables(
    entries: tuple[Entry, ...], dtype: torch.dtype, tiling: Tiling, device: torch.device, stream: int
) -> list[Table]:
    result = []
    for grad_dtype in dict.fromkeys(grad_dtype for _, _, grad_dtype in entries):
        wide = WIDE_ACCESS // min(dtype.itemsize, grad_dtype.itemsize)
        parts: dict[bool, list[Entry]] = {True: [], False: []}
        for entry in entries:
            if entry[2] == grad_dtype:
                parts[_aligned(entry, wide, tiling)].append(entry)
        if parts[False] and sum(k * m * n for _, (k, m, n), _ in parts[True]) <= WORTH_SPLITTING:
            parts = {False: [*parts[True], *parts[False]]}
        result += [_table(part, grad_dtype, tiling, device, flag) for flag, part in parts.items() if part]
    return result


def _aligned(entry: Entry, wide: int, tiling: Tiling) -> bool:
    """Return whether every thread may load ``wide`` entries at once."""
    addresses, (_, m, n), _ = entry
    return not any(address % WIDE_ACCESS for address in addresses[1:]) and tiling.aligns(m, n, wide)


def _table(
    entries: list[Entry], grad_dtype: torch.dtype, tiling: Tiling, device: torch.device, aligned: bool
) -> Table:
    words: list[int] = []
    programs = matrices = 0
    for addresses, (k, m, n), _ in entries:
        words += (programs, matrices, m, n, *addresses)
        programs += k * tiling.programs(m, n)
        matrices += k
    return Table(_upload(words, device), len(entries), programs, matrices, grad_dtype, aligned)


def _upload(words: list[int], device: torch.device) -> Tensor:
    """Return the words on the device, without waiting for it."""
    if device.type != "cuda":
        return torch.tensor(words, dtype=torch.int64, device=device)
    if torch.cuda.is_current_stream_capturing():
        table = torch.zeros(len(words), dtype=torch.int64, device=device)
        torch._foreach_add_(table.unbind(), words)
        return table
    return torch.tensor(words, dtype=torch.int64, pin_memory=True).to(device, non_blocking=True)
