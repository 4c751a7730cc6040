"""Which dtype matrix products compute in."""

from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cache
from typing import Any

import torch

_AUTOCAST = ("cpu", "cuda", "mps", "xpu")
"""Types of devices on which regions of mixed precision are looked for."""


@cache
def fast_bfloat16(device: torch.device) -> bool:
    """Native bfloat16 matrix products: CUDA from capability 8, CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type == "cpu":
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, probe, bool)() for probe in probes)
    return False


def own_dtypes() -> AbstractContextManager[Any]:
    """Return a context in which products keep their dtypes, in regions of ``torch.autocast`` too.

    It would round factors of float32 to bfloat16, and hand the result to operations that refuse it.
    """
    if not torch._C._is_any_autocast_enabled():
        return nullcontext()
    stack = ExitStack()
    for kind in filter(torch.is_autocast_enabled, _AUTOCAST):
        stack.enter_context(torch.autocast(kind, enabled=False))
    return stack


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def iteration_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """float64 for float64; bfloat16 where that is native; else float32."""
    if dtype != torch.float64 and fast_bfloat16(device):
        return torch.bfloat16
    return at_least_float32(dtype)
