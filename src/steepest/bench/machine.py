"""What figures depend on: the machine, the versions, and how busy the machine was."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from steepest.kernels.native import library
from steepest.race.provenance import hardware

PACKAGES = ("torch", "steepest", "pytorch-optimizer", "heavyball", "triton")


def machine(device: torch.device) -> dict[str, Any]:
    """Return chip, cores, threads, memory in GiB, the device, and the native kernels or why none."""
    found: dict[str, Any] = dict(hardware())
    found["ram_gib"] = _memory()
    found["device"] = device.type
    native = library.load()
    missing = isinstance(native, library.Unavailable)
    found["native"] = f"none, {native}" if missing else f"{native.simd}, {native.compiler}"
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["gpu"] = properties.name
        found["gpu_gib"] = round(properties.total_memory / 2**30, 1)
        found["cuda"] = torch.version.cuda
    return found


def versions() -> dict[str, str]:
    """Return the versions of what takes part; a package that is not installed is left out."""
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def load() -> float | None:
    """Return how many processes wanted a core over the last minute, where the system tells."""
    try:
        return round(os.getloadavg()[0], 1)
    except (AttributeError, OSError):
        return None


def import_seconds(runs: int = 7) -> list[float]:
    """Return how long `import steepest` takes after `import torch`, each in a new process.

    Raises:
        subprocess.CalledProcessError: the library cannot be imported.
    """
    code = (
        "import time, torch; start = time.perf_counter(); import steepest; print(time.perf_counter() - start)"
    )
    found = []
    for _ in range(runs):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        found.append(round(float(done.stdout), 4))
    return found


def copy_bandwidth(device: torch.device, repeats: int = 7) -> float:
    """Return the bytes a second, read and written, of copying 256 MiB: the median of some repeats."""
    from steepest.bench.timing import stopwatch

    source = torch.ones(2**26, device=device)
    target = torch.empty_like(source)
    clock = stopwatch(device)
    target.copy_(source)
    times = [clock(lambda: target.copy_(source)) for _ in range(repeats)]
    return 2 * source.numel() * source.element_size() / statistics.median(times)


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None
