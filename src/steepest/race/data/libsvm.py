"""LIBSVM's sparse text format, as dense features and labels 0 and 1."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from steepest.race.data.decoded import decoded
from steepest.race.data.lookup import DataError, Source, find


class Table(NamedTuple):
    """Features (n, d) in float32 and labels (n,): 0 for the smaller of the file's two labels, else 1."""

    features: Tensor
    labels: Tensor


def load(source: Source, features: int, folder: str | Path | None = None) -> Table:
    """Load a two-class file with this many features.

    Raises:
        DataError: the file is missing or malformed, has more features, or not two labels.
    """
    path = find(source, folder)
    arrays = decoded(path, f"libsvm{features}", lambda: _read(path, features))
    return Table(arrays["features"], arrays["labels"])


def _read(path: Path, features: int) -> dict[str, np.ndarray]:
    from sklearn.datasets import load_svmlight_file

    try:
        table, labels = load_svmlight_file(str(path), n_features=features)
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a LIBSVM file of {features} features: {error}") from None
    values = np.unique(labels)
    if len(values) != 2:
        raise DataError(f"{path} has the labels {values[:5].tolist()}, expected two different ones")
    dense = np.asarray(table.todense(), dtype=np.float32)
    if not np.isfinite(dense).all():
        raise DataError(f"{path} holds features that are not finite numbers")
    return {"features": dense, "labels": (labels == values[1]).astype(np.int64)}


def scaled(table: Table, exponent: float, generator: torch.Generator) -> Table:
    """Return the table with every feature multiplied by exp(uniform[-exponent, exponent])."""
    factors = torch.empty(table.features.shape[1]).uniform_(-exponent, exponent, generator=generator).exp()
    return Table(table.features * factors, table.labels)
