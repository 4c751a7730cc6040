"""Triton kernels: fused steps on CUDA, many tensors in a few launches.

A step of an elementwise plan is one launch, of a normalized one three, of an equilibrated one five; a list of
any length takes no more. Kernels read the count of steps and tensors of hyperparameters on the device.
Nothing here imports Triton before a CUDA parameter asks for it.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from steepest.kernels.plans import Elementwise, plan_of
from steepest.rule import Rule

if TYPE_CHECKING:
    from steepest.kernels.triton.kernel import TritonKernel

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
CAPABILITY = (8, 0)
"""The oldest compute capability that Triton supports."""


def triton_kernel(rule: Rule, param: Tensor, group: Mapping[str, Any]) -> TritonKernel | None:
    """Return the kernel for a plan on a contiguous floating-point parameter on CUDA, or None.

    With ``TRITON_INTERPRET=1`` parameters on the CPU have kernels, and those on CUDA have none.
    """
    if (
        param.dtype not in DTYPES
        or not param.is_contiguous()
        or type(param.data) is not Tensor
        or torch.compiler.is_compiling()
        or not _runs_on(param.device)
    ):
        return None
    batch_dims = group.get("batch_dims", 0)
    shape = param.shape[batch_dims:]
    plan = plan_of(rule.for_shape(shape), shape)
    if plan is None:
        return None
    from steepest.kernels.triton.kernel import TritonKernel

    return TritonKernel(plan, 0 if isinstance(plan, Elementwise) else batch_dims, group["maximize"])


def _runs_on(device: torch.device) -> bool:
    if not _installed():
        return False
    if os.environ.get("TRITON_INTERPRET") == "1":
        return device.type == "cpu"
    return device.type == "cuda" and _launches(device)


@lru_cache(maxsize=1)
def _installed() -> bool:
    return importlib.util.find_spec("triton") is not None


_LAUNCHES: dict[torch.device, bool] = {}


def _launches(device: torch.device) -> bool:
    """Return whether kernels can be built for a device; the first call launches one to see."""
    if device not in _LAUNCHES:
        if torch.cuda.is_current_stream_capturing():
            return False  # a graph is no place to build the first kernel
        _LAUNCHES[device] = _probe(device)
    return _LAUNCHES[device]


def _probe(device: torch.device) -> bool:
    if torch.version.hip or torch.cuda.get_device_capability(device) < CAPABILITY:
        return False
    try:
        from steepest.kernels.triton.probe import touch

        with torch.cuda.device(device):
            touch[(1,)](torch.zeros(1, device=device))
    except Exception as error:  # of many kinds, a subprocess's among them
        warnings.warn(
            f"steepest: Triton cannot build kernels for {device} ({type(error).__name__}: {error}); "
            "steps there take the unfused path. What is missing most often is a C compiler",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True
