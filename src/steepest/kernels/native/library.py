"""The compiled library: found, checked, given torch's threads, or a reason why there is none."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

ABI = 2
"""Must be the library's: raised together with STEEPEST_ABI in csrc/abi.h."""
FILE = Path(__file__).with_name("_kernels.so")
SWITCH = "STEEPEST_NATIVE"
LEVELS = ("baseline", "avx2", "avx512")
LEVEL_SWITCH = "STEEPEST_SIMD"
ENTRY_POINTS = ("GOMP_parallel", "GOMP_barrier", "omp_get_thread_num", "omp_get_num_threads")
"""What the kernels need of an OpenMP runtime: GNU's interface, which LLVM's and Intel's have on Linux too."""


class Unavailable(Exception):
    """Why there are no native kernels, in words."""

    def __init__(self, reason: str, wanted: bool = True) -> None:
        super().__init__(reason)
        self.wanted = wanted
        """Whether someone who did not ask for this would like to know."""


@dataclass(frozen=True, eq=False)
class Library:
    """The loaded kernels."""

    step: Any
    all_finite: Any
    scratch_bytes: Any
    compiler: str
    simd: str
    """The level of instructions chosen for this processor."""


@cache
def load() -> Library | Unavailable:
    """Return the library, or why it cannot be used. Looked for once in a process."""
    try:
        return _load(FILE)
    except Unavailable as reason:
        return reason


def _load(path: Path) -> Library:
    if os.environ.get(SWITCH, "1") == "0":
        raise Unavailable(f"switched off by {SWITCH}=0", wanted=False)
    highest = _highest_level()
    if not path.exists():
        raise Unavailable("not built: there was no C compiler for it when steepest was installed")
    try:
        handle = ctypes.CDLL(os.fspath(path))
        handle.steepest_abi.restype = ctypes.c_int
        found = handle.steepest_abi()
    except (OSError, AttributeError) as error:
        raise Unavailable(f"cannot be loaded: {error}") from error
    if found != ABI:
        raise Unavailable(
            f"built for another version of steepest (interface {found}, needed {ABI}): install steepest again"
        )
    pointer, integer, text = ctypes.c_void_p, ctypes.c_int64, ctypes.c_char_p
    _declare(handle.steepest_use_runtime, None, *[pointer] * 4)
    _declare(handle.steepest_choose, text, ctypes.c_int)
    _declare(handle.steepest_compiler, text)
    _declare(handle.steepest_scratch_bytes, integer, integer, integer)
    _declare(handle.steepest_all_finite, ctypes.c_int, *[pointer, integer] * 2, integer, ctypes.c_int)
    _declare(handle.steepest_step, None, *[pointer] * 3, integer, pointer, integer, integer, ctypes.c_int)
    handle.steepest_use_runtime(*_runtime())
    simd = handle.steepest_choose(highest).decode()
    return Library(
        handle.steepest_step,
        handle.steepest_all_finite,
        handle.steepest_scratch_bytes,
        handle.steepest_compiler().decode(),
        simd,
    )


def _highest_level() -> int:
    wanted = os.environ.get(LEVEL_SWITCH, LEVELS[-1])
    if wanted not in LEVELS:
        raise ValueError(f"{LEVEL_SWITCH} must be one of {', '.join(LEVELS)}, got {wanted!r}")
    return LEVELS.index(wanted)


def _declare(function: Any, result: Any, *arguments: Any) -> None:
    function.restype, function.argtypes = result, arguments


def _runtime() -> list[int]:
    """Return the addresses of the entry points of the OpenMP runtime that torch runs on."""
    for handle in _runtimes():
        try:
            return [_address(getattr(handle, name)) for name in ENTRY_POINTS]
        except AttributeError:
            continue
    raise Unavailable("torch's threads have no GNU OpenMP interface here")


def _runtimes() -> Iterator[ctypes.CDLL]:
    # A library's handle finds symbols in what it was linked to: with torch's, the runtime torch itself uses.
    own = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if own.exists():
        yield ctypes.CDLL(os.fspath(own))
    yield ctypes.CDLL(None)


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0
