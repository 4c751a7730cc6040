"""Fused paths, behind one dispatch point that looks at the recipe, not at the class."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from steepest.kernels.native import native_kernel
from steepest.kernels.torch_fused import adam_kernel
from steepest.kernels.triton import triton_kernel
from steepest.rounding import needs_rounding
from steepest.rule import Rule

__all__ = ["Kernel", "fused_kernel"]


class Kernel(Hashable, Protocol):
    """Updates state and weight of many parameters in one pass. ``state["step"]`` is already counted up.

    Kernels on the CPU may ask the check of gradients for more than it is for: see ``NativeKernel.asks``.
    """

    def __call__(
        self,
        params: Sequence[Tensor],
        grads: Sequence[Tensor],
        states: Sequence[Mapping[str, Tensor]],
        hypers: Mapping[str, Any],
    ) -> None:
        """Update states and parameters in place; ``grads`` are read only, of any strides."""
        ...


def fused_kernel(rule: Rule, param: Tensor, group: Mapping[str, Any]) -> Kernel | None:
    """Return the fastest fused path that computes ``rule`` on ``param``, or None. Equal kernels batch."""
    if needs_rounding(param, group) or group.get("momentum_dtype") not in (None, torch.float32):
        return None
    elsewhere = triton_kernel if param.is_cuda else native_kernel
    return adam_kernel(rule, param, group) or elsewhere(rule, param, group)
