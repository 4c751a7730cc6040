"""Where a file is: a given folder, ``STEEPEST_DATA``, or the cache, which a checked download fills."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from steepest.race.records import RaceError


class DataError(RaceError):
    """A file that is missing, broken or not what it should be; the message names it."""


@dataclass(frozen=True)
class Source:
    """A file as its author distributes it.

    Args:
        name: what the file is called in the cache.
        url: its canonical address.
        sha256: of the file at that address. Files in a user's own folder are not held to it: they may be
            recompressed, and are checked by their content when they are read.
        aliases: further names, relative to a folder, under which a user may have it, unpacked or not.
    """

    name: str
    url: str
    sha256: str
    aliases: tuple[str, ...] = ()


def cache_folder() -> Path:
    """Return ``STEEPEST_CACHE``, or ``steepest`` in the user's cache folder."""
    if own := os.environ.get("STEEPEST_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "steepest"


def find(source: Source, folder: str | Path | None = None) -> Path:
    """Return the path of a source's file or unpacked folder, downloading it as the last resort.

    Looks where `present` looks. With ``STEEPEST_OFFLINE=1`` nothing is downloaded.

    Raises:
        DataError: it is nowhere, and could not be downloaded; or a folder that was named does not exist.
    """
    if (found := present(source, folder)) is not None:
        return found
    if os.environ.get("STEEPEST_OFFLINE", "0") not in ("", "0"):
        reason = "STEEPEST_OFFLINE forbids downloading it"
    else:
        from steepest.race.data.download import fetch

        try:
            return fetch(source, cache_folder())
        except OSError as error:
            reason = f"downloading {source.url} failed: {error}"
    looked = [f"{what} ({place or 'not set'})" for what, place in _named(folder).items()]
    names = " or ".join((source.name, *source.aliases))
    raise DataError(
        f"{names} is not in {', '.join(looked)} or the cache ({cache_folder()}), and {reason}. "
        f"Put the file into one of these folders, or pass --data FOLDER"
    )


def present(source: Source, folder: str | Path | None = None) -> Path | None:
    """Return the path of a source in ``folder``, the folder ``STEEPEST_DATA`` or the cache, else None.

    Raises:
        DataError: a folder that was named does not exist.
    """
    for what, place in _named(folder).items():
        if place is None:
            continue
        if not Path(place).is_dir():
            raise DataError(f"{what} is {str(place)!r}, which is not a folder")
        if (found := _within(Path(place), source)) is not None:
            return found
    return _within(cache_folder(), source)


def _named(folder: str | Path | None) -> dict[str, str | Path | None]:
    return {"the folder given": folder, "STEEPEST_DATA": os.environ.get("STEEPEST_DATA") or None}


def _within(place: Path, source: Source) -> Path | None:
    return next((place / name for name in (source.name, *source.aliases) if (place / name).exists()), None)
