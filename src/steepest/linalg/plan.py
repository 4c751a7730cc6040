"""How a polar factor is computed: which polynomials, on what, in which dtype, how many matrices at a time.

A plan follows from the method, the shape, the dtype, the device and the number of threads alone: nothing is
timed when it is made, and equal calls compute equally. The numbers are measured; the commands that measure
them are beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Size, Tensor

from steepest.linalg.precision import at_least_float32, iteration_dtype
from steepest.linalg.quintics import (
    MINIMAX_ERROR,
    MINIMAX_MARGIN,
    POLAR_EXPRESS_MARGIN,
    Quintic,
    minimax_schedule,
    newton_schulz_schedule,
    polar_express_schedule,
)
from steepest.spelling import suggest

# name: (polynomials, safety factor on the Frobenius norm, form)
_ITERATIONS = {
    "auto": (newton_schulz_schedule, 1.0, "cheapest"),
    "newton_schulz": (newton_schulz_schedule, 1.0, "direct"),
    "polar_express": (polar_express_schedule, POLAR_EXPRESS_MARGIN, "direct"),
    "minimax": (minimax_schedule, MINIMAX_MARGIN, "cheapest"),
    "gram": (newton_schulz_schedule, 1.0, "gram"),
    "gram_polar_express": (polar_express_schedule, POLAR_EXPRESS_MARGIN, "gram"),
}
POLAR_METHODS = (*_ITERATIONS, "svd")

# The long side over the short one from which the Gram form is the cheaper. In operations it is 1.5 for any
# number of steps; measured with `python benchmarks/polar_table.py --crossover`, one thread of a 2.5 GHz Xeon,
# float32: 1.5 for short sides of 128 to 512, where the forms take the same time to 4 %.
_GRAM_RATIO = 1.5

# How large the rounding of the Gram matrix may become before X is met again, for methods without a request.
_GRAM_ROUNDING = 0.05

# What rounding may add to max |s - 1| of `minimax`: ten times what it does for sides up to 300; and what
# five steps of `polar_express` stay within in bfloat16.
_ROUNDING = {torch.float64: 1e-12, torch.float32: 5e-6}
_BFLOAT16_ERROR = 0.2

# Entries of all buffers of one call: 16 MiB of float32 for each thread of a CPU, which is about what its
# caches hold; 1 GiB elsewhere, a bound on memory that leaves every core busy.
_CPU_ENTRIES = 2**22
_DEVICE_ENTRIES = 2**28


@dataclass(frozen=True)
class PolarPlan:
    """What `polar` does with a stack of matrices of one shape."""

    schedule: tuple[Quintic, ...]
    """The polynomials; none for the exact factor."""
    margin: float
    """The Frobenius norm of what they are applied to is one over this."""
    on_gram: bool
    """Whether they are applied to the Gram matrix of the short side."""
    gram_rounding: float
    """How large the rounding of that Gram matrix may become."""
    dtype: torch.dtype
    """Dtype of the products."""
    chunk: int
    """Matrices at a time."""

    @property
    def exact(self) -> bool:
        """Whether the factor is computed by decomposition."""
        return not self.schedule


def check_polar(
    method: str = "auto",
    steps: int = 5,
    *,
    error: float | None = None,
    compute_dtype: torch.dtype | None = None,
) -> None:
    """Raise `ValueError` for arguments that `polar` refuses, without computing."""
    if method not in POLAR_METHODS:
        hint = suggest(str(method), POLAR_METHODS)
        raise ValueError(f"method={method!r} is unknown: must be one of {', '.join(POLAR_METHODS)}{hint}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps={steps!r} is out of range: must be an integer >= 1")
    if error is not None:
        _check_error(error, method)
    if compute_dtype is not None:
        _check_compute_dtype(compute_dtype, error, method)


def _check_error(error: float, method: str) -> None:
    if isinstance(error, bool) or not isinstance(error, int | float) or not 0 < error < 1:
        raise ValueError(f"error={error!r} is out of range: must be None or a number in (0, 1)")
    if method != "auto":
        raise ValueError(f"error={error!r} needs method='auto', which chooses by it; got method={method!r}")


def _check_compute_dtype(dtype: torch.dtype, error: float | None, method: str) -> None:
    if not dtype.is_floating_point:
        raise ValueError(f"compute_dtype={dtype} is not a floating point dtype")
    exacting = error is not None and (dtype != torch.bfloat16 or error < _BFLOAT16_ERROR)
    if dtype.itemsize < 4 and (method == "minimax" or exacting):
        raise ValueError(
            f"compute_dtype={dtype} is too coarse for method={method!r} with error={error!r}: "
            "must be torch.float32 or torch.float64"
        )


def polar_plan(
    x: Tensor,
    method: str = "auto",
    steps: int = 5,
    *,
    error: float | None = None,
    compute_dtype: torch.dtype | None = None,
) -> PolarPlan:
    """Return what `polar` does with `x` for the same arguments, which must be valid ones.

    Example:
        >>> import torch
        >>> from steepest.linalg import polar_plan
        >>> polar_plan(torch.ones(64, 256), compute_dtype=torch.float32).on_gram
        True
        >>> len(polar_plan(torch.ones(64, 256), error=0.33).schedule)
        4
        >>> polar_plan(torch.ones(64, 256), error=1e-7).exact
        True
    """
    short, long = min(x.shape[-2:]), max(x.shape[-2:])
    oblong = long > _GRAM_RATIO * short
    dtype, gram_rounding = compute_dtype or iteration_dtype(x.dtype, x.device), _GRAM_ROUNDING
    if error is not None:
        gram_rounding = min(error / 10, _GRAM_ROUNDING)
        method, steps, dtype = _for_error(error, x.dtype, dtype)
    if method == "svd":
        entries = 6 * short * (short + long)  # three copies of each in float64
        return PolarPlan((), 1.0, False, gram_rounding, torch.float64, _chunk(x.shape, entries, x.device))
    make, margin, form = _ITERATIONS[method]
    if compute_dtype is None and (method == "minimax" or (form == "gram" and oblong)):
        dtype = at_least_float32(x.dtype)
    # By itself the Gram form is chosen in float32 alone. float64 is asked for by those who compare digits,
    # and the direct form rounds least; in half precision the Gram matrix would be formed anew in nearly every
    # step.
    on_gram = oblong and (form == "gram" or (form == "cheapest" and dtype == torch.float32))
    entries = 4 * short * short + short * long if on_gram else 2 * short * short + 2 * short * long
    chunk = _chunk(x.shape, entries, x.device)
    return PolarPlan(tuple(make(steps)), margin, on_gram, gram_rounding, dtype, chunk)


def _for_error(error: float, given: torch.dtype, dtype: torch.dtype) -> tuple[str, int, torch.dtype]:
    """Return method, steps and dtype of the cheapest path whose `max |s - 1|` is at most `error`.

    `dtype` is what an iteration would compute in, `given` what the matrix is in.
    """
    if dtype == torch.bfloat16:
        if error >= _BFLOAT16_ERROR:
            return "polar_express", 5, dtype
        dtype = at_least_float32(given)
    fitting = (steps for steps, own in MINIMAX_ERROR.items() if own + _ROUNDING[dtype] <= error)
    steps = next(fitting, None)
    return ("svd", 1, torch.float64) if steps is None else ("minimax", steps, dtype)


def _chunk(shape: Size, entries: int, device: torch.device) -> int:
    """Matrices at a time, in parts of about equal size, for buffers of so many entries a matrix."""
    count = max(1, shape[:-2].numel())
    if torch.compiler.is_compiling():  # it plans buffers itself, and cannot trace the number of threads
        return count
    limit = _CPU_ENTRIES * torch.get_num_threads() if device.type == "cpu" else _DEVICE_ENTRIES
    parts = -(-count // max(1, limit // max(1, entries)))
    return -(-count // parts)
