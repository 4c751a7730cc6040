"""A folder with small files of the true formats, and the real data where this machine has it."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

REAL = os.environ.get("STEEPEST_DATA")  # read before the tests set their own
TEXT = "to be or not to be, that is the question: whether 'tis nobler in the mind to suffer"


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(header + array.tobytes(), 1))


def write_grey(folder: Path, seed: int) -> None:
    """Images whose class is how bright they are."""
    rng = np.random.default_rng(seed)
    for part, count in (("train", 200), ("t10k", 60)):
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        images = rng.integers(0, 10, (count, 28, 28), dtype=np.uint8) + 20 * labels[:, None, None]
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)


def write_cifar(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(2)
    for name, count in (("data_batch_1", 120), ("data_batch_2", 80), ("test_batch", 60)):
        labels = np.sort(rng.integers(0, 10, count, dtype=np.uint8))
        images = rng.integers(0, 10, (count, 3072), dtype=np.uint8) + 20 * labels[:, None]
        (folder / f"{name}.bin").write_bytes(np.concatenate([labels[:, None], images], 1).tobytes())


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_grey(folder / "fashion-mnist", 0)
    write_grey(folder / "mnist", 1)
    write_cifar(folder / "cifar-10-batches-bin")
    drawn = np.random.default_rng(3).choice(TEXT.split(), 3000)
    (folder / "tinyshakespeare.txt").write_text(" ".join(drawn), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def decoded(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def data(small, decoded, monkeypatch) -> Path:
    monkeypatch.setenv("STEEPEST_DATA", str(small))
    monkeypatch.setenv("STEEPEST_CACHE", str(decoded))
    monkeypatch.setenv("STEEPEST_OFFLINE", "1")
    return small


@pytest.fixture
def real_data(monkeypatch) -> Path:
    if not REAL or not Path(REAL).is_dir():
        pytest.skip("STEEPEST_DATA names no folder of real data")
    monkeypatch.setenv("STEEPEST_DATA", REAL)
    monkeypatch.setenv("STEEPEST_OFFLINE", "1")
    return Path(REAL)
