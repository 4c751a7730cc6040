"""From partial sums to one size and one length for each matrix."""

# Values known at compile time look like variables to a type checker.
# pyright: reportInvalidTypeForm=false, reportArgumentType=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from steepest.kernels.triton.arithmetic import EPS, number
from steepest.kernels.triton.locate import COLUMNS, FIRST, MATRIX, ROWS, WIDTH, locate


@triton.jit(do_not_specialize=["count"])
def finish(
    table,
    count,
    squares,
    energies,
    steps,
    numbers,
    eps: tl.float64,
    factor: tl.float64,
    ON_DEVICE: tl.constexpr,
    FLOOR: tl.constexpr,
    TALL: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Store what the step of every matrix is divided by and multiplied with.

    ``squares`` and ``energies`` hold a sum for each program, always added in one order. With ``FLOOR`` the
    two are sqrt(sum of squares) + eps and sqrt(sum of energies + 1), else sqrt(sum of squares) and
    ``factor``; for a zero matrix the first is 1. The programs were tiles, or with ``TALL`` = 0 chunks of
    ``WIDE`` entries.
    """
    matrix = tl.program_id(0)
    row = table + locate(table, count, matrix, MATRIX) * WIDTH
    m = tl.load(row + ROWS)
    n = tl.load(row + COLUMNS)
    across = m * n if TALL == 0 else n
    programs = (across + WIDE - 1) // WIDE
    if TALL != 0:
        programs *= (m + TALL - 1) // TALL
    head = tl.load(row + FIRST) + (matrix - tl.load(row + MATRIX)) * programs
    square = tl.zeros((BLOCK,), tl.float64)
    energy = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, programs, BLOCK):
        at = start + tl.arange(0, BLOCK)
        square += tl.load(squares + head + at, mask=at < programs, other=0.0)
        if FLOOR:
            energy += tl.load(energies + head + at, mask=at < programs, other=0.0)
    size = tl.sqrt(tl.sum(square, 0))
    length = tl.full((), factor, tl.float64)
    divisor = size
    if FLOOR:
        length = tl.sqrt(tl.sum(energy, 0) + 1.0)
        divisor = size + number(numbers, eps, EPS, ON_DEVICE)
    tl.store(steps + 2 * matrix, tl.where(size == 0, 1.0, divisor))
    tl.store(steps + 2 * matrix + 1, length)
