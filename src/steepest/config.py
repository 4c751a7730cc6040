"""What an installation consists of, and which fast paths it has."""

from __future__ import annotations

import importlib.util
import platform
import sys
from collections.abc import Mapping
from typing import Any, Literal

import torch

from steepest._version import __version__
from steepest.kernels.native.library import Unavailable, load


def show_config(mode: Literal["stdout", "dict"] = "stdout") -> dict[str, Any] | None:
    """Print versions, threads and fast paths, with the reason for each that is missing; or return them.

    - ``native``: compiled CPU kernels. ``simd`` is the level of instructions chosen for this processor (the
      environment variable STEEPEST_SIMD, one of baseline, avx2, avx512, caps it), ``compiler`` what built
      them. STEEPEST_NATIVE=0 switches them off.
    - ``triton``: fused kernels on CUDA.
    - ``torch fused``: torch's own fused Adam, for recipes that are Adam or AdamW.

    Args:
        mode: ``"stdout"`` prints and returns None, ``"dict"`` returns a dictionary. Default ``"stdout"``.

    Raises:
        ValueError: for another mode.

    Example:
        >>> import steepest
        >>> sorted(steepest.show_config("dict"))
        ['device', 'native', 'threads', 'torch fused', 'triton', 'versions']
    """
    if mode not in ("stdout", "dict"):
        raise ValueError(f"mode must be 'stdout' or 'dict', got {mode!r}")
    found = {
        "versions": {
            "steepest": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "device": {
            "processor": f"{platform.machine()}, {platform.system()}",
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        },
        "threads": {"torch": torch.get_num_threads()},
        "native": _native(),
        "triton": _triton(),
        "torch fused": {"available": True, "for": "Adam, AdamW in float32 and float64 on CPU and CUDA"},
    }
    if mode == "dict":
        return found
    sys.stdout.write(_text(found))
    return None


def _native() -> dict[str, Any]:
    library = load()
    if isinstance(library, Unavailable):
        return {"available": False, "reason": str(library)}
    return {"available": True, "simd": library.simd, "compiler": library.compiler}


def _triton() -> dict[str, Any]:
    if importlib.util.find_spec("triton") is None:
        return {"available": False, "reason": "triton is not installed"}
    if not torch.cuda.is_available():
        return {"available": False, "reason": "torch sees no CUDA device"}
    return {"available": True}


def _text(found: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for section, values in found.items():
        lines.append(section)
        lines += [f"  {name + ':':12}{_word(value)}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def _word(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
