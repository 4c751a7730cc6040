"""What the kernels compute on a block of entries: roots, momentum, and the weight's move.

The numbers of a step arrive in float64, so that 1 - beta2 and 1 - lr * weight_decay lose nothing, and are
rounded once to the dtype of the arithmetic.
"""

# Values known at compile time look like variables to a type checker.
# pyright: reportInvalidTypeForm=false, reportArgumentType=false, reportPossiblyUnboundVariable=false

import triton
import triton.language as tl

LR = tl.constexpr(0)  # places of the numbers in the vector that holds them where one is a device tensor
MOMENTUM = tl.constexpr(1)
BETA2 = tl.constexpr(2)
EPS = tl.constexpr(3)
WEIGHT_DECAY = tl.constexpr(4)


@triton.jit
def number(vector, value, PLACE: tl.constexpr, ON_DEVICE: tl.constexpr):
    """Return a number of the step as a float64 scalar, from the vector where ``ON_DEVICE``."""
    return tl.load(vector + PLACE) if ON_DEVICE else tl.full((), value, tl.float64)


@triton.jit
def root(x):
    """Return the square root, correctly rounded."""
    return tl.sqrt_rn(x) if x.dtype == tl.float32 else tl.sqrt(x)


@triton.jit
def power(x, EXPONENT: tl.constexpr):
    """Return x^EXPONENT for x >= 0, by float64 logarithms unless the exponent is 1 or 1/2."""
    if EXPONENT == 1.0:
        raised = x
    elif EXPONENT == 0.5:
        raised = root(x)
    else:
        wide = x.to(tl.float64)
        raised = tl.exp2(EXPONENT * tl.log2(tl.where(wide > 0, wide, 1.0))).to(x.dtype)
        raised = tl.where(x > 0, raised, x)  # 0 and NaN stay
    return raised


@triton.jit
def gradient(grad, weight, weight_decay, MAXIMIZE: tl.constexpr, DECAY: tl.constexpr):
    """Return the descent gradient."""
    if MAXIMIZE:
        grad = -grad
    if DECAY == "l2":
        grad = grad + weight_decay.to(grad.dtype) * weight
    return grad


@triton.jit
def averaged(
    buffer, x, momentum, first, AVERAGING: tl.constexpr, NESTEROV: tl.constexpr, FROM_FIRST: tl.constexpr
):
    """Return the buffer and the average after ``x``, without bias correction; ``first`` at step 1."""
    if AVERAGING == "heavy_ball":
        if FROM_FIRST:
            buffer = tl.where(first, x, buffer)
        buffer = momentum.to(x.dtype) * buffer + x
    else:
        buffer = between(buffer, x, momentum)
    return buffer, lookahead(buffer, x, momentum, AVERAGING, NESTEROV)


@triton.jit
def lookahead(buffer, x, momentum, AVERAGING: tl.constexpr, NESTEROV: tl.constexpr):
    """Return the average from the updated buffer."""
    average = buffer
    if NESTEROV:
        if AVERAGING == "heavy_ball":
            average = momentum.to(x.dtype) * buffer + x
        else:
            average = between(buffer, x, momentum)
    return average


@triton.jit
def between(buffer, x, momentum):
    """Return momentum buffer + (1 - momentum) x, as the nearer of the two and a share of their difference."""
    mu = momentum.to(x.dtype)
    rest = (1.0 - momentum).to(x.dtype)
    return tl.where(rest < 0.5, buffer + rest * (x - buffer), x - mu * (x - buffer))


@triton.jit
def moved(weight, step, lr, weight_decay, DECAY: tl.constexpr):
    """Return the weight after decay and a step of length ``lr`` along ``-step``."""
    kept = (1.0 - lr * weight_decay).to(weight.dtype)
    if DECAY == "cautious":
        weight = tl.where(step * weight > 0, weight * kept, weight)
    elif DECAY == "decoupled":
        weight = weight * kept
    weight = weight - lr.to(weight.dtype) * step
    if DECAY == "after":
        weight = weight * kept
    return weight
