"""Compiled kernels on the CPU: one pass over memory for each plan, on the threads torch already runs.

Optional: without a compiler at install time, or with the environment variable ``STEEPEST_NATIVE=0``,
everything runs on the reference path. ``STEEPEST_SIMD`` (baseline, avx2, avx512) caps the instructions used.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from steepest.kernels.native.finite import Extents, all_finite
from steepest.kernels.native.kernel import NativeKernel, computes, kernel_for
from steepest.kernels.native.library import Unavailable, load
from steepest.kernels.plans import plan_of
from steepest.rule import Rule

__all__ = ["Extents", "NativeKernel", "all_finite", "native_kernel"]

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def native_kernel(rule: Rule, param: Tensor, group: Mapping[str, Any]) -> NativeKernel | None:
    """Return the kernel for a rule on a contiguous parameter of ``DTYPES`` on the CPU, or None.

    The first time that one is missing only because it was not built, a warning says so.
    """
    if (
        param.device.type != "cpu"
        or param.dtype not in DTYPES
        or not param.is_contiguous()
        or torch.compiler.is_compiling()
        or type(param.data) is not Tensor
    ):
        return None
    batch_dims = group.get("batch_dims", 0)
    shape = param.shape[batch_dims:]
    plan = plan_of(rule.for_shape(shape), shape)
    if plan is None or not computes(plan):
        return None
    library = load()
    if isinstance(library, Unavailable):
        if library.wanted:
            _say(str(library))
        return None
    return kernel_for(plan, group["maximize"], batch_dims, library)


@cache
def _say(reason: str) -> None:
    warnings.warn(
        f"steepest's native CPU kernels are {reason}. Steps are correct but slower; steepest.show_config() "
        "says more, STEEPEST_NATIVE=0 silences this",
        RuntimeWarning,
        stacklevel=2,
    )
