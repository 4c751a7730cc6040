"""Which data a result is of: a short checksum for the keys of runs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from steepest.race.data.download import sha256
from steepest.race.data.lookup import Source, present

LENGTH = 12


def identity(sources: Iterable[Source]) -> str:
    """Return a checksum of the files that would be read, without reading more or downloading anything.

    A source that is not there counts with the checksum of what a download would bring, so that a key does
    not change when it arrives. An unpacked folder counts with the names and sizes of its files.
    """
    digest = hashlib.sha256()
    for source in sources:
        path = present(source)
        digest.update((source.sha256 if path is None else _checksum(path)).encode())
    return digest.hexdigest()[:LENGTH]


def _checksum(path: Path) -> str:
    if path.is_file():
        stat = path.stat()
        return _of_file(path, stat.st_size, stat.st_mtime_ns)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    told = "\n".join(f"{file.relative_to(path)} {file.stat().st_size}" for file in files)
    return hashlib.sha256(told.encode()).hexdigest()


@lru_cache(maxsize=64)
def _of_file(path: Path, size: int, changed: int) -> str:
    """``size`` and ``changed`` tell a replaced file from the one read before."""
    return sha256(path)
