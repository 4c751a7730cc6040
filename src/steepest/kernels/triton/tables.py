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
from torch import Size, Tensor

from steepest.rounding import compute_dtype
from steepest.views import stack_shape

WIDE_ACCESS = 16
"""Bytes of the widest access of one thread."""
MULTIPLE = 8
"""Entries that such an access holds at most. The kernels are promised matrices, or rows, of a multiple."""
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

    def aligns(self, m: int, n: int) -> bool:
        """Return whether the rows that tiles cut, or the matrices that chunks cut, allow wide accesses."""
        return (n if self.tall else m * n) % MULTIPLE == 0


@dataclass(frozen=True)
class Table:
    """What one launch works on: ``count`` rows of ``words`` for as many tensors."""

    words: Tensor
    count: int
    programs: int
    matrices: int
    grad_dtype: torch.dtype
    aligned: bool


@dataclass(frozen=True)
class Touched:
    """What a step touches, as columns with an entry for every tensor: addresses, shapes, dtypes.

    A column of addresses that a plan does not have is empty.
    """

    steps: tuple[int, ...]
    params: tuple[int, ...]
    grads: tuple[int, ...]
    averages: tuple[int, ...]
    squares: tuple[int, ...]
    shapes: tuple[Size, ...]
    grad_dtypes: tuple[torch.dtype, ...]


def touched(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    states: Sequence[Mapping[str, Tensor]],
    average: str | None,
    square: str | None,
    counts: bool,
) -> Touched:
    """Return what a step touches, or raise if state is not what :mod:`steepest.views` makes.

    ``average`` and ``square`` name the buffers, ``counts`` says whether ``step`` is read. Parameters and
    gradients must be contiguous.
    """
    work = compute_dtype(params[0])
    return Touched(
        _addresses("step", params, states, torch.float32) if counts else (),
        tuple([param.data_ptr() for param in params]),
        tuple([grad.data_ptr() for grad in grads]),
        _addresses(average, params, states, work) if average else (),
        _addresses(square, params, states, work) if square else (),
        tuple([param.shape for param in params]),
        tuple([grad.dtype for grad in grads]),
    )


def _addresses(
    name: str, params: Sequence[Tensor], states: Sequence[Mapping[str, Tensor]], dtype: torch.dtype
) -> tuple[int, ...]:
    """Return where a state is, which kernels read by address alone."""
    values, place = [state[name] for state in states], params[0].get_device()
    for value, param in zip(values, params, strict=True):
        if (
            value.dtype is not dtype
            or value.get_device() != place
            or not value.is_contiguous()
            or (name != "step" and value.numel() != param.numel())
        ):
            raise RuntimeError(
                f"state[{name!r}] must be a contiguous {dtype} tensor on {param.device} that fits its "
                f"parameter of shape {tuple(param.shape)}; got a {value.dtype} tensor of shape "
                f"{tuple(value.shape)} on {value.device}. Use fused=False for state of another kind"
            )
    return tuple([value.data_ptr() for value in values])


def tables(of: Touched, batch_dims: int | None, tiling: Tiling, device: torch.device) -> list[Table]:
    """Return the tables of a step of parameters on one device.

    Without ``batch_dims`` tensors are rows of entries, else stacks of matrices.
    """
    if device.type != "cuda":
        return _tables(of, batch_dims, tiling, device, 0)
    if torch.cuda.is_current_stream_capturing():
        return _tables.__wrapped__(of, batch_dims, tiling, device, 0)
    # Another stream would not wait for this one's upload.
    stream = torch.cuda.current_stream(device).cuda_stream
    return _tables(of, batch_dims, tiling, device, stream)


Row = tuple[int, tuple[int, int, int]]
"""A tensor's place in the columns, and its shape as a stack (k, m, n)."""


@lru_cache(maxsize=64)
def _tables(
    of: Touched,
    batch_dims: int | None,
    tiling: Tiling,
    device: torch.device,
    stream: int,
) -> list[Table]:
    result = []
    for grad_dtype in dict.fromkeys(of.grad_dtypes):
        parts: dict[bool, list[Row]] = {True: [], False: []}
        for i, shape in enumerate(of.shapes):
            if of.grad_dtypes[i] == grad_dtype and shape.numel():
                k, m, n = (1, 1, shape.numel()) if batch_dims is None else stack_shape(shape, batch_dims)
                parts[_aligned(of, i) and tiling.aligns(m, n)].append((i, (k, m, n)))
        if parts[False] and sum(k * m * n for _, (k, m, n) in parts[True]) <= WORTH_SPLITTING:
            parts = {False: sorted([*parts[True], *parts[False]])}
        for aligned, rows in parts.items():
            if rows:
                result.append(_table(of, rows, grad_dtype, tiling, device, aligned))
    return result


def _aligned(of: Touched, i: int) -> bool:
    """Return whether a tensor's arrays begin where the widest accesses may."""
    return not any(own[i] % WIDE_ACCESS for own in (of.params, of.grads, of.averages, of.squares) if own)


def _table(
    of: Touched,
    rows: list[Row],
    grad_dtype: torch.dtype,
    tiling: Tiling,
    device: torch.device,
    aligned: bool,
) -> Table:
    words: list[int] = []
    programs = matrices = 0
    for i, (k, m, n) in rows:
        addresses = (own[i] if own else 0 for own in (of.steps, of.params, of.grads, of.averages, of.squares))
        words += (programs, matrices, m, n, *addresses)
        programs += k * tiling.programs(m, n)
        matrices += k
    return Table(_upload(words, device), len(rows), programs, matrices, grad_dtype, aligned)


def _upload(words: list[int], device: torch.device) -> Tensor:
    """Return the words on the device, without waiting for it."""
    if device.type != "cuda":
        return torch.tensor(words, dtype=torch.int64, device=device)
    if torch.cuda.is_current_stream_capturing():
        return by_value(words, device)
    return torch.tensor(words, dtype=torch.int64, pin_memory=True).to(device, non_blocking=True)


def by_value(words: list[int], device: torch.device) -> Tensor:
    """Return the words on the device, written by kernels that carry them as arguments."""
    table = torch.zeros(len(words), dtype=torch.int64, device=device)
    torch._foreach_add_(table.unbind(), words)
    return table
