"""One file from its canonical address: resumed where it broke off, checked, and put in place whole."""

from __future__ import annotations

import hashlib
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

from filelock import FileLock

from steepest.race.data.lookup import DataError, Source

CHUNK = 1 << 20
PATIENCE = 30.0
"""Seconds without a byte after which a connection counts as broken."""


def fetch(source: Source, folder: Path) -> Path:
    """Download a source into ``folder`` and return its path.

    Bytes are kept in ``NAME.part`` until all are there and their sha256 is right, so that an interrupted
    download goes on where it stopped. Several processes may ask at once: one downloads, the others wait.

    Raises:
        DataError: what arrived has another checksum; it is deleted.
        OSError: there is no connection, or no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target, part = folder / source.name, folder / f"{source.name}.part"
    with FileLock(folder / f"{source.name}.lock"):
        if target.exists():  # another process was faster
            return target
        _append(source, part)
        found = sha256(part)
        if found != source.sha256:
            part.unlink()
            raise DataError(
                f"{source.url} has sha256 {found}, expected {source.sha256}: the file was changed or damaged "
                f"on the way; nothing was kept. A file you trust can be put into {folder} as {source.name}"
            )
        os.replace(part, target)
    return target


def sha256(path: Path) -> str:
    """Return the checksum of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _append(source: Source, part: Path) -> None:
    """Bring ``part`` to its full length."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(source.url, headers={"User-Agent": "steepest"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is missing
            return
        raise
    with response:
        resumed = response.status == 206
        length = int(response.headers.get("Content-Length") or 0)
        total = length + (have if resumed else 0)
        size = f"{total / 1e6:.1f} MB" if length else "unknown size"
        print(f"downloading {source.name} ({size}) from {source.url}", file=sys.stderr, flush=True)
        written = have if resumed else 0
        with part.open("ab" if resumed else "wb") as file:
            while chunk := response.read(CHUNK):
                file.write(chunk)
                written += len(chunk)
        if length and written < total:
            raise OSError(f"the connection broke off after {written} of {total} bytes; run again to go on")
