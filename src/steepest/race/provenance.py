"""Where a result comes from: versions, hardware, and the code of the classes that took part."""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
from functools import lru_cache
from pathlib import Path

import torch

from steepest._version import __version__


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Return the versions that a number in a record may depend on."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "steepest": __version__,
        "platform": f"{platform.system()} {platform.machine()}",
    }


@lru_cache(maxsize=1)
def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def hardware() -> dict[str, str | int]:
    """Return the processor, its cores, and the threads that torch uses in this process."""
    return {"cpu": _cpu_model(), "cores": os.cpu_count() or 1, "threads": torch.get_num_threads()}


def code_fingerprint(target: str) -> str:
    """Return what changes when the code behind ``module:object`` does, as far as can be told cheaply.

    The version for torch and steepest, else a hash of the module's own source file: editing a class of
    your own makes the race run it again.
    """
    module = target.partition(":")[0]
    package = module.partition(".")[0]
    if package in ("torch", "steepest"):
        return versions()[package]
    source = getattr(importlib.import_module(module), "__file__", None)
    if source is None:
        return ""
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()[:12]
