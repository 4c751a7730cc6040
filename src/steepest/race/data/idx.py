"""MNIST's IDX format: four files of images and labels, gzipped or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from steepest.race.data.decoded import decoded
from steepest.race.data.lookup import DataError, Source, find


class Images(NamedTuple):
    """Grey images (n, 28, 28) as bytes and their labels 0..9 as int64."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def load(sources: Mapping[str, Source], folder: str | Path | None = None) -> Images:
    """Load MNIST or Fashion-MNIST, one of the tables in :mod:`steepest.race.data.sources`.

    Raises:
        DataError: a file is missing, truncated, of another format, or labels do not fit images.
    """
    found: dict[str, Tensor] = {}
    for part in ("train", "test"):
        images_at = find(sources[f"{part}_images"], folder)
        labels_at = find(sources[f"{part}_labels"], folder)
        images = decoded(images_at, "idx", lambda at=images_at: {"array": read(at, 3)})["array"]
        labels = decoded(labels_at, "idx", lambda at=labels_at: {"array": read(at, 1)})["array"]
        if len(images) != len(labels):
            raise DataError(
                f"{labels_at} holds {len(labels)} labels, but {images_at} holds {len(images)} images"
            )
        if len(labels) and int(labels.max()) > 9:
            raise DataError(f"{labels_at} holds the label {int(labels.max())}, expected 0 to 9")
        found[part], found[f"{part}_labels"] = images, labels.long()
    return Images(**found)


def read(path: Path, dimensions: int) -> np.ndarray:
    """Return the bytes of an IDX file of this many dimensions."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is not a complete gzip file: {error}") from None
    if len(raw) < 4 or raw[:2] != b"\0\0":
        raise DataError(f"{path} is not an IDX file: it begins with {raw[:4]!r}")
    if raw[2] != 8 or raw[3] != dimensions:
        raise DataError(
            f"{path} holds type {raw[2]:#04x} in {raw[3]} dimensions, expected bytes (0x08) in {dimensions}: "
            "images and labels may have been exchanged"
        )
    start = 4 + 4 * dimensions
    if len(raw) < start:
        raise DataError(f"{path} ends within its header")
    shape = struct.unpack(f">{dimensions}I", raw[4:start])
    if len(raw) - start != math.prod(shape):
        raise DataError(f"{path} holds {len(raw) - start} bytes of data, its header says {math.prod(shape)}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)
