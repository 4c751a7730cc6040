"""Triton's interpreter, which runs kernels on the CPU, made fit for tests.

Two things are mended from outside. It truncates where a device rounds float32 to bfloat16 to nearest even.
And it wraps the whole language again whenever one kernel function calls another, which is most of its time.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter


class _Once:
    """Patches a language module once per launch, however many functions the kernel calls."""

    def __init__(self) -> None:
        self.patch = interpreter._patch_lang
        self.patched: set[int] = set()

    def __call__(self, function: Any) -> Any:
        modules = {id(v) for v in function.__globals__.values() if inspect.ismodule(v) and v in (tl, tl.core)}
        if modules <= self.patched:
            return None
        outermost = not self.patched
        self.patched |= modules
        return _Restoring(self, self.patch(function)) if outermost else self.patch(function)


class _Restoring:
    def __init__(self, once: _Once, scope: Any) -> None:
        self.once, self.scope = once, scope

    def restore(self) -> None:
        self.once.patched.clear()
        self.scope.restore()


def _rounding(cast: Any) -> Any:
    def cast_impl(self: Any, source: Any, target: Any) -> Any:
        if source.dtype.scalar != tl.float32 or target.scalar != tl.bfloat16:
            return cast(self, source, target)
        values = torch.from_numpy(np.ascontiguousarray(source.data)).to(torch.bfloat16)
        return interpreter.TensorHandle(values.view(torch.int16).numpy().view(np.uint16), target.scalar)

    return cast_impl


def mend() -> None:
    """Mend the interpreter of this process."""
    if not isinstance(interpreter._patch_lang, _Once):
        interpreter._patch_lang = _Once()
        interpreter.InterpreterBuilder.cast_impl = _rounding(interpreter.InterpreterBuilder.cast_impl)
