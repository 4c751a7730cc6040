"""Arrays that are slow to decode: decoded once, kept in the cache, and mapped into memory from then on."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from steepest.race.data.lookup import cache_folder

VERSION = 1
"""Part of every name: change it when decoding changes."""


def decoded(path: Path, what: str, decode: Callable[[], dict[str, np.ndarray]]) -> dict[str, Tensor]:
    """Return ``decode()`` as tensors, mapped from the cache if this file was decoded before.

    A file counts as the same if its path, size and time of change are; a folder if its own time is. A cache
    that cannot be written only costs time.
    """
    stat = path.stat()
    told = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{what}|{VERSION}"
    folder = cache_folder() / "decoded" / f"{what}-{hashlib.sha256(told.encode()).hexdigest()[:16]}"
    if not folder.is_dir():
        arrays = decode()
        try:
            _keep(arrays, folder)
        except OSError:
            return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    # Copy on write: tensors must not be able to change the file, and torch wants memory it may write to.
    return {
        file.stem: torch.from_numpy(np.load(file, mmap_mode="c")) for file in sorted(folder.glob("*.npy"))
    }


def _keep(arrays: dict[str, np.ndarray], folder: Path) -> None:
    """Write all arrays, then let the folder appear at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = Path(temporary) / "arrays"
        made.mkdir()
        for name, array in arrays.items():
            np.save(made / f"{name}.npy", array)
        try:
            os.rename(made, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
