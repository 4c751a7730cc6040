"""Kernels of the equilibrated step, which go through matrices tile by tile.

Three passes over the gradient: ``sums`` of squares along rows and columns, the size of the equilibrated
gradient (``equilibrate``), and the move (``descend``). Between them ``norms`` and
:func:`steepest.kernels.triton.sums.finish` add what the tiles left behind, in a fixed order and without
atomics, so that equal input gives equal bits. The second pass runs backwards, and so begins and ends with
what the pass before and the pass after it have in the cache.

Partial sums of rows and columns are float64 vectors of a tile's sides, one pair for each tile.
"""

# Values known at compile time look like variables to a type checker.
# pyright: reportInvalidTypeForm=false, reportArgumentType=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from steepest.kernels.triton.arithmetic import (
    EPS,
    LR,
    MOMENTUM,
    WEIGHT_DECAY,
    averaged,
    gradient,
    moved,
    number,
)
from steepest.kernels.triton.locate import (
    BUFFER,
    FIRST,
    GRAD,
    MATRIX,
    PARAM,
    STEP,
    WIDTH,
    array,
    locate,
    tile,
)


@triton.jit
def rows_of(down, start, m, TALL: tl.constexpr, BLOCK: tl.constexpr):
    """Return the rows of a block of a tile, their place in the tile, and which of them exist."""
    place = start + tl.arange(0, BLOCK)
    rows = down * TALL + place
    return rows, place, rows < m


@triton.jit
def block(rows, valid, aside, m, n, matrix, WIDE: tl.constexpr):
    """Return the offsets and the mask of a block of a tile."""
    columns = aside * WIDE + tl.arange(0, WIDE)
    at = (matrix * m * n + rows * n)[:, None] + columns[None, :]
    return at, valid[:, None] & (columns < n)[None, :]


@triton.jit
def d_squared(row_norms, column_norms, eps, AXIS: tl.constexpr):
    """Return D^2 = r + c + eps of a block, or a row or column that broadcasts."""
    if AXIS == "both":
        d = (row_norms + eps)[:, None] + column_norms[None, :]
    elif AXIS == "rows":
        d = (row_norms + eps)[:, None]
    else:
        d = (column_norms + eps)[None, :]
    # With eps = 0, a zero row that meets a zero column stands still.
    return tl.where(eps == 0, tl.where(d > 0, d, float("inf")), d)


@triton.jit
def columns_of_tile(partial_columns, head, aside, n, shift, WIDE: tl.constexpr):
    """Return the column norms that belong to a tile: those ``shift`` columns on."""
    columns = aside * WIDE + tl.arange(0, WIDE)
    return tl.load(partial_columns + head * WIDE + (columns + shift) % n, mask=columns < n, other=0.0)


@triton.jit(do_not_specialize=["count"])
def sums(
    table,
    count,
    energies,
    partial_rows,
    partial_columns,
    numbers,
    weight_decay: tl.float64,
    ON_DEVICE: tl.constexpr,
    DTYPE: tl.constexpr,
    GRAD_DTYPE: tl.constexpr,
    WORK: tl.constexpr,
    ALIGNED: tl.constexpr,
    MAXIMIZE: tl.constexpr,
    DECAY: tl.constexpr,
    TALL: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Store the sums of squares of each tile: along its rows, along its columns, and of all of it."""
    decay = number(numbers, weight_decay, WEIGHT_DECAY, ON_DEVICE)
    program = tl.program_id(0).to(tl.int64)
    row = table + locate(table, count, program, FIRST) * WIDTH
    m, n, down, aside, _, matrix, _ = tile(row, program, TALL, WIDE, ALIGNED)
    grads = array(row, GRAD, GRAD_DTYPE, ALIGNED)
    weights = array(row, PARAM, DTYPE, ALIGNED)
    squares = tl.zeros((BLOCK, WIDE), tl.float64)
    for start in range(0, tl.minimum(m - down * TALL, TALL), BLOCK):
        rows, place, valid = rows_of(down, start, m, TALL, BLOCK)
        at, mask = block(rows, valid, aside, m, n, matrix, WIDE)
        x = tl.load(grads + at, mask=mask, other=0.0).to(WORK)
        weight = x
        if DECAY == "l2":
            weight = tl.load(weights + at, mask=mask, other=0.0).to(WORK)
        wide = gradient(x, weight, decay, MAXIMIZE, DECAY).to(tl.float64)
        wide = wide * wide
        squares += wide
        tl.store(partial_rows + program * TALL + place, tl.sum(wide, 1), mask=valid)
    along_columns = tl.sum(squares, 0)
    tl.store(partial_columns + program * WIDE + tl.arange(0, WIDE), along_columns)
    tl.store(energies + program, tl.sum(along_columns, 0))


@triton.jit(do_not_specialize=["count"])
def norms(
    table,
    count,
    partial_rows,
    partial_columns,
    TALL: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Turn partial sums into norms.

    Row norms replace the sums of the first tile in each row of tiles. Column norms replace the sums of the
    first row of tiles, which makes them one vector from the matrix' first tile on.
    """
    program = tl.program_id(0).to(tl.int64)
    row = table + locate(table, count, program, FIRST) * WIDTH
    m, _, down, aside, across, _, _ = tile(row, program, TALL, WIDE, False)
    if aside == 0:
        tall = tl.arange(0, TALL)
        inside = (down * TALL + tall < m)[None, :]
        total = tl.zeros((BLOCK, TALL), tl.float64)
        for start in range(0, across, BLOCK):
            tiles = start + tl.arange(0, BLOCK)
            at = (program + tiles)[:, None] * TALL + tall[None, :]
            total += tl.load(partial_rows + at, mask=(tiles < across)[:, None] & inside, other=0.0)
        tl.store(partial_rows + program * TALL + tall, tl.sqrt(tl.sum(total, 0)))
    if down == 0:
        wide = tl.arange(0, WIDE)
        high = (m + TALL - 1) // TALL
        total = tl.zeros((BLOCK, WIDE), tl.float64)
        for start in range(0, high, BLOCK):
            tiles = start + tl.arange(0, BLOCK)
            at = (program + tiles * across)[:, None] * WIDE + wide[None, :]
            total += tl.load(partial_columns + at, mask=(tiles < high)[:, None], other=0.0)
        tl.store(partial_columns + program * WIDE + wide, tl.sqrt(tl.sum(total, 0)))


@triton.jit(do_not_specialize=["count", "shift"])
def equilibrate(
    table,
    count,
    squares,
    partial_rows,
    partial_columns,
    numbers,
    eps: tl.float64,
    weight_decay: tl.float64,
    shift,
    ON_DEVICE: tl.constexpr,
    DTYPE: tl.constexpr,
    GRAD_DTYPE: tl.constexpr,
    WORK: tl.constexpr,
    ALIGNED: tl.constexpr,
    MAXIMIZE: tl.constexpr,
    DECAY: tl.constexpr,
    AXIS: tl.constexpr,
    TALL: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Store the sum of squares of each tile of g / D^2; the last tile comes first."""
    eps = number(numbers, eps, EPS, ON_DEVICE)
    decay = number(numbers, weight_decay, WEIGHT_DECAY, ON_DEVICE)
    program = (tl.num_programs(0) - 1 - tl.program_id(0)).to(tl.int64)
    row = table + locate(table, count, program, FIRST) * WIDTH
    m, n, down, aside, _, matrix, head = tile(row, program, TALL, WIDE, ALIGNED)
    grads = array(row, GRAD, GRAD_DTYPE, ALIGNED)
    weights = array(row, PARAM, DTYPE, ALIGNED)
    column_norms = columns_of_tile(partial_columns, head, aside, n, shift, WIDE).to(WORK)
    total = tl.zeros((BLOCK, WIDE), tl.float64)
    for start in range(0, tl.minimum(m - down * TALL, TALL), BLOCK):
        rows, place, valid = rows_of(down, start, m, TALL, BLOCK)
        at, mask = block(rows, valid, aside, m, n, matrix, WIDE)
        row_norms = tl.load(partial_rows + (program - aside) * TALL + place, mask=valid, other=0.0).to(WORK)
        x = tl.load(grads + at, mask=mask, other=0.0).to(WORK)
        weight = x
        if DECAY == "l2":
            weight = tl.load(weights + at, mask=mask, other=0.0).to(WORK)
        x = gradient(x, weight, decay, MAXIMIZE, DECAY)
        wide = (x / d_squared(row_norms, column_norms, eps.to(WORK), AXIS)).to(tl.float64)
        total += tl.where(mask, wide * wide, 0.0)
    tl.store(squares + program, tl.sum(tl.sum(total, 0), 0))


@triton.jit(do_not_specialize=["count", "shift"])
def descend(
    table,
    count,
    steps,
    partial_rows,
    partial_columns,
    corrections,
    numbers,
    lr: tl.float64,
    momentum: tl.float64,
    eps: tl.float64,
    weight_decay: tl.float64,
    shift,
    ON_DEVICE: tl.constexpr,
    DTYPE: tl.constexpr,
    GRAD_DTYPE: tl.constexpr,
    WORK: tl.constexpr,
    ALIGNED: tl.constexpr,
    MAXIMIZE: tl.constexpr,
    DECAY: tl.constexpr,
    AVERAGING: tl.constexpr,
    NESTEROV: tl.constexpr,
    FROM_FIRST: tl.constexpr,
    CORRECTED: tl.constexpr,
    AXIS: tl.constexpr,
    TALL: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """S = length (g / D^2) / size, averaged, and the move."""
    lr = number(numbers, lr, LR, ON_DEVICE)
    mu = number(numbers, momentum, MOMENTUM, ON_DEVICE)
    eps = number(numbers, eps, EPS, ON_DEVICE)
    decay = number(numbers, weight_decay, WEIGHT_DECAY, ON_DEVICE)
    program = tl.program_id(0).to(tl.int64)
    index = locate(table, count, program, FIRST)
    row = table + index * WIDTH
    m, n, down, aside, _, matrix, head = tile(row, program, TALL, WIDE, ALIGNED)
    grads = array(row, GRAD, GRAD_DTYPE, ALIGNED)
    weights = array(row, PARAM, DTYPE, ALIGNED)
    own = steps + 2 * (tl.load(row + MATRIX) + matrix)
    size = tl.load(own).to(WORK)
    length = tl.load(own + 1).to(WORK)
    if AVERAGING != "none":
        buffers = array(row, BUFFER, WORK, ALIGNED)
        first = False
        if FROM_FIRST:
            first = tl.load(array(row, STEP, tl.float32, False)) == 1.0
        if CORRECTED:
            correction = tl.load(corrections + 2 * index).to(WORK)
    column_norms = columns_of_tile(partial_columns, head, aside, n, shift, WIDE).to(WORK)
    for start in range(0, tl.minimum(m - down * TALL, TALL), BLOCK):
        rows, place, valid = rows_of(down, start, m, TALL, BLOCK)
        at, mask = block(rows, valid, aside, m, n, matrix, WIDE)
        row_norms = tl.load(partial_rows + (program - aside) * TALL + place, mask=valid, other=0.0).to(WORK)
        x = tl.load(grads + at, mask=mask, other=0.0).to(WORK)
        weight = tl.load(weights + at, mask=mask, other=0.0).to(WORK)
        x = gradient(x, weight, decay, MAXIMIZE, DECAY)
        step = x / d_squared(row_norms, column_norms, eps.to(WORK), AXIS) / size * length
        if AVERAGING != "none":
            buffer = tl.load(buffers + at, mask=mask, other=0.0)
            buffer, step = averaged(buffer, step, mu, first, AVERAGING, NESTEROV, FROM_FIRST)
            tl.store(buffers + at, buffer, mask=mask)
            if CORRECTED:
                step = step / correction
        tl.store(weights + at, moved(weight, step, lr, decay, DECAY).to(DTYPE), mask=mask)
