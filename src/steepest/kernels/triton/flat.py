"""Kernels that go through tensors entry by entry, whatever their shape."""

# Values known at compile time look like variables to a type checker.
# pyright: reportInvalidTypeForm=false, reportArgumentType=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

from steepest.kernels.triton.arithmetic import (
    BETA2,
    EPS,
    LR,
    MOMENTUM,
    WEIGHT_DECAY,
    averaged,
    gradient,
    lookahead,
    moved,
    number,
    power,
    root,
)
from steepest.kernels.triton.locate import (
    BUFFER,
    FIRST,
    GRAD,
    PARAM,
    SQUARE,
    STEP,
    WIDTH,
    array,
    chunk,
    locate,
)


@triton.jit(do_not_specialize=["count"])
def correct(
    table,
    count,
    corrections,
    numbers,
    momentum: tl.float64,
    beta2: tl.float64,
    ON_DEVICE: tl.constexpr,
    NESTEROV: tl.constexpr,
    EXPONENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Store (1 - momentum^t, (1 - beta2^t)^EXPONENT) for every tensor; t + 1 for the first under Nesterov."""
    mu = number(numbers, momentum, MOMENTUM, ON_DEVICE)
    beta = number(numbers, beta2, BETA2, ON_DEVICE)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    address = tl.load(table + index * WIDTH + STEP, mask=mask, other=0)
    steps = tl.load(address.to(tl.pointer_type(tl.float32)), mask=mask, other=1.0).to(tl.float64)
    ahead = steps + 1.0 if NESTEROV else steps
    tl.store(corrections + 2 * index, 1.0 - tl.exp(ahead * tl.log(tl.maximum(mu, 1e-300))), mask=mask)
    weight = 1.0 - tl.exp(steps * tl.log(tl.maximum(beta, 1e-300)))
    tl.store(corrections + 2 * index + 1, tl.exp(EXPONENT * tl.log(weight)), mask=mask)


@triton.jit(do_not_specialize=["count"])
def elementwise(
    table,
    count,
    corrections,
    numbers,
    lr: tl.float64,
    momentum: tl.float64,
    beta2: tl.float64,
    eps: tl.float64,
    weight_decay: tl.float64,
    factor: tl.float64,
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
    STATISTIC: tl.constexpr,
    EXPONENT: tl.constexpr,
    PLACEMENT: tl.constexpr,
    SQUARE_CORRECTED: tl.constexpr,
    SIGN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """S = M / D^2, or factor sign(M / D) / D, and the move."""
    lr = number(numbers, lr, LR, ON_DEVICE)
    mu = number(numbers, momentum, MOMENTUM, ON_DEVICE)
    beta = number(numbers, beta2, BETA2, ON_DEVICE)
    eps = number(numbers, eps, EPS, ON_DEVICE)
    decay = number(numbers, weight_decay, WEIGHT_DECAY, ON_DEVICE)
    index = locate(table, count, tl.program_id(0), FIRST)
    row = table + index * WIDTH
    at, mask, _ = chunk(row, tl.program_id(0), BLOCK, ALIGNED)
    weights = array(row, PARAM, DTYPE, ALIGNED) + at
    weight = tl.load(weights, mask=mask, other=0.0).to(WORK)
    grad = tl.load(array(row, GRAD, GRAD_DTYPE, ALIGNED) + at, mask=mask, other=0.0).to(WORK)
    x = gradient(grad, weight, decay, MAXIMIZE, DECAY)

    m = x
    if AVERAGING != "none":
        buffers = array(row, BUFFER, WORK, ALIGNED) + at
        buffer = tl.load(buffers, mask=mask, other=0.0)
        first = False
        if FROM_FIRST:
            first = tl.load(array(row, STEP, tl.float32, False)) == 1.0
        buffer, m = averaged(buffer, x, mu, first, AVERAGING, NESTEROV, FROM_FIRST)
        tl.store(buffers, buffer, mask=mask)
        if CORRECTED:
            m = m / tl.load(corrections + 2 * index).to(WORK)

    if STATISTIC != "none":
        squares = array(row, SQUARE, WORK, ALIGNED) + at
        v = tl.load(squares, mask=mask, other=0.0)
        v = v + x * x if STATISTIC == "sum" else beta.to(WORK) * v + (1.0 - beta).to(WORK) * (x * x)
        tl.store(squares, v, mask=mask)
        epsilon = eps.to(WORK)
        correction = tl.full((), 1.0, WORK)
        if SQUARE_CORRECTED:
            correction = tl.load(corrections + 2 * index + 1).to(WORK)
        if PLACEMENT == "inside":
            d_squared = power(v / correction + epsilon, EXPONENT)
        elif PLACEMENT == "floor":
            d_squared = power(v, EXPONENT) / correction
            d_squared = tl.where(d_squared < epsilon, epsilon, d_squared)
        elif PLACEMENT == "uncorrected":
            d_squared = (power(v, EXPONENT) + epsilon) / correction
        else:
            d_squared = power(v, EXPONENT) / correction + epsilon
        # With eps = 0, an entry that never saw a gradient stands still.
        d_squared = tl.where(eps == 0, tl.where(d_squared > 0, d_squared, float("inf")), d_squared)

    if SIGN:
        if STATISTIC != "none":
            d = root(d_squared)
            m = m / d
        # NaN is its own sign here, so that it shows.
        step = tl.where(m > 0, 1.0, tl.where(m < 0, -1.0, m))
        if STATISTIC != "none":
            step = step / d
        step = step * tl.full((), factor, tl.float64).to(WORK)
    elif STATISTIC != "none":
        step = m / d_squared
    else:
        step = m
    tl.store(weights, moved(weight, step, lr, decay, DECAY).to(DTYPE), mask=mask)


@triton.jit(do_not_specialize=["count"])
def measure(
    table,
    count,
    squares,
    numbers,
    momentum: tl.float64,
    weight_decay: tl.float64,
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
    BLOCK: tl.constexpr,
):
    """Update the momentum of the gradient and store the sum of squares of each chunk of the average.

    ``AVERAGING="none"`` measures the gradient itself.
    """
    mu = number(numbers, momentum, MOMENTUM, ON_DEVICE)
    decay = number(numbers, weight_decay, WEIGHT_DECAY, ON_DEVICE)
    program = tl.program_id(0)
    index = locate(table, count, program, FIRST)
    row = table + index * WIDTH
    at, mask, _ = chunk(row, program, BLOCK, ALIGNED)
    x = tl.load(array(row, GRAD, GRAD_DTYPE, ALIGNED) + at, mask=mask, other=0.0).to(WORK)
    weight = x
    if DECAY == "l2":
        weight = tl.load(array(row, PARAM, DTYPE, ALIGNED) + at, mask=mask, other=0.0).to(WORK)
    x = gradient(x, weight, decay, MAXIMIZE, DECAY)
    if AVERAGING != "none":
        buffers = array(row, BUFFER, WORK, ALIGNED) + at
        buffer = tl.load(buffers, mask=mask, other=0.0)
        first = False
        if FROM_FIRST:
            first = tl.load(array(row, STEP, tl.float32, False)) == 1.0
        buffer, x = averaged(buffer, x, mu, first, AVERAGING, NESTEROV, FROM_FIRST)
        tl.store(buffers, buffer, mask=mask)
    wide = x.to(tl.float64)
    tl.store(squares + program, tl.sum(wide * wide, 0))


@triton.jit(do_not_specialize=["count"])
def move(
    table,
    count,
    steps,
    corrections,
    numbers,
    lr: tl.float64,
    momentum: tl.float64,
    weight_decay: tl.float64,
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
    AFTER: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """S = length X / size of each matrix, and the move.

    X is the gradient, and with ``AFTER`` S is averaged; without, X is the average that :func:`measure` has
    already updated.
    """
    lr = number(numbers, lr, LR, ON_DEVICE)
    mu = number(numbers, momentum, MOMENTUM, ON_DEVICE)
    decay = number(numbers, weight_decay, WEIGHT_DECAY, ON_DEVICE)
    program = tl.program_id(0)
    index = locate(table, count, program, FIRST)
    row = table + index * WIDTH
    at, mask, matrix = chunk(row, program, BLOCK, ALIGNED)
    size = tl.load(steps + 2 * matrix).to(WORK)
    length = tl.load(steps + 2 * matrix + 1).to(WORK)
    weights = array(row, PARAM, DTYPE, ALIGNED) + at
    weight = tl.load(weights, mask=mask, other=0.0).to(WORK)
    x = weight
    if AFTER or NESTEROV or AVERAGING == "none":
        grad = tl.load(array(row, GRAD, GRAD_DTYPE, ALIGNED) + at, mask=mask, other=0.0).to(WORK)
        x = gradient(grad, weight, decay, MAXIMIZE, DECAY)
    if AVERAGING != "none":
        buffers = array(row, BUFFER, WORK, ALIGNED) + at
        buffer = tl.load(buffers, mask=mask, other=0.0)
    if AVERAGING != "none" and not AFTER:
        x = lookahead(buffer, x, mu, AVERAGING, NESTEROV)
    step = x / size * length
    if AVERAGING != "none" and AFTER:
        first = False
        if FROM_FIRST:
            first = tl.load(array(row, STEP, tl.float32, False)) == 1.0
        buffer, step = averaged(buffer, step, mu, first, AVERAGING, NESTEROV, FROM_FIRST)
        tl.store(buffers, buffer, mask=mask)
        if CORRECTED:
            step = step / tl.load(corrections + 2 * index).to(WORK)
    tl.store(weights, moved(weight, step, lr, decay, DECAY).to(DTYPE), mask=mask)
