"""Plain text as characters."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from steepest.race.data.lookup import DataError, Source, find


class Characters(NamedTuple):
    """Characters as integers: the first part for training, the rest for validation."""

    train: Tensor
    val: Tensor
    vocabulary: int


def load(source: Source, folder: str | Path | None = None) -> str:
    """Return a text file's content.

    Raises:
        DataError: it is missing, empty or not UTF-8.
    """
    path = find(source, folder)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}"
        ) from None
    if not text:
        raise DataError(f"{path} is empty")
    return text


def encode(text: str, validation: float = 0.1) -> Characters:
    """Encode characters by their place in the sorted vocabulary and cut off the end for validation."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    vocabulary, inverse = np.unique(points, return_inverse=True)
    encoded = torch.from_numpy(inverse.astype(np.int64))
    cut = int(len(encoded) * (1 - validation))
    return Characters(encoded[:cut], encoded[cut:], len(vocabulary))
