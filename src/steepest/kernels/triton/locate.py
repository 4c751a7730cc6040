"""Where a program of a launch works: the table of tensors, searched on the device.

One launch serves many tensors. Its table holds a row of int64 words for each: where its programs and its
matrices begin in the launch's numbering, its shape, and the addresses of everything the kernel touches. A
program finds its row by bisection of a column, so that the launch needs no list as long as its grid.
"""

# Values known at compile time look like variables to a type checker.
# pyright: reportInvalidTypeForm=false, reportArgumentType=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

FIRST = tl.constexpr(0)  # number of the first program
MATRIX = tl.constexpr(1)  # number of the first matrix
ROWS = tl.constexpr(2)  # m and n of each of the tensor's matrices
COLUMNS = tl.constexpr(3)
STEP = tl.constexpr(4)  # addresses from here on
PARAM = tl.constexpr(5)
GRAD = tl.constexpr(6)
BUFFER = tl.constexpr(7)
SQUARE = tl.constexpr(8)
WIDTH = tl.constexpr(9)


@triton.jit
def locate(table, count, number, COLUMN: tl.constexpr):
    """Return the index of the last of ``count`` rows whose ``COLUMN`` is at most ``number``."""
    low = count * 0
    high = count
    while high - low > 1:
        middle = (low + high) // 2
        below = tl.load(table + middle * WIDTH + COLUMN) <= number
        low = tl.where(below, middle, low)
        high = tl.where(below, high, middle)
    return low


@triton.jit
def array(row, COLUMN: tl.constexpr, DTYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """Return the address in a row's column as a pointer; ``ALIGNED`` promises a multiple of 16 bytes."""
    pointer = tl.load(row + COLUMN).to(tl.pointer_type(DTYPE))
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
def chunk(row, number, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):
    """Return the offsets and the mask of a program's entries, and the number of its matrix in the launch.

    Programs go through each matrix in chunks of ``BLOCK`` entries. ``ALIGNED`` promises matrices of a
    multiple of 8 entries.
    """
    size = tl.load(row + ROWS) * tl.load(row + COLUMNS)
    if ALIGNED:
        size = tl.multiple_of(size, 8)
    chunks = (size + BLOCK - 1) // BLOCK
    first = tl.load(row + FIRST)
    matrix = (number - first) // chunks
    within = (number - first - matrix * chunks) * BLOCK + tl.arange(0, BLOCK)
    return matrix * size + within, within < size, tl.load(row + MATRIX) + matrix


@triton.jit
def tile(row, number, TALL: tl.constexpr, WIDE: tl.constexpr, ALIGNED: tl.constexpr):
    """Return m, n, the tile's row and column in the matrix' grid of tiles, that grid's width, the index of
    the matrix in its tensor, and the number of its first program.

    Programs go through each matrix in tiles of ``TALL`` rows and ``WIDE`` columns, row of tiles by row.
    ``ALIGNED`` promises rows of a multiple of 8 entries.
    """
    m = tl.load(row + ROWS)
    n = tl.load(row + COLUMNS)
    if ALIGNED:
        n = tl.multiple_of(n, 8)
    across = (n + WIDE - 1) // WIDE
    tiles = (m + TALL - 1) // TALL * across
    first = tl.load(row + FIRST)
    matrix = (number - first) // tiles
    head = first + matrix * tiles
    down = (number - head) // across
    return m, n, down, number - head - down * across, across, matrix, head
