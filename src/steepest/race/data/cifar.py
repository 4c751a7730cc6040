"""CIFAR-10: its own archives, binary or pickled, unpacked or not, or a folder or archive of images."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from torch import Tensor

from steepest.race.data.decoded import decoded
from steepest.race.data.lookup import DataError, find, present
from steepest.race.data.sources import CIFAR10

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NAME = "CIFAR-10"
RECORD = 1 + 3 * 32 * 32
File = tuple[PurePosixPath, Callable[[], bytes]]
Arrays = dict[str, np.ndarray]


class Cifar10(NamedTuple):
    """Images (n, 3, 32, 32) as bytes, labels 0..9, and what to call the data."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    called: str


def load(folder: str | Path | None = None) -> Cifar10:
    """Load CIFAR-10. Results on recompressed images are to be called "CIFAR-10 (JPEG)", as ``called`` says.

    Raises:
        DataError: it is missing, or a file in it is truncated or not what it should be.
    """
    path = find(CIFAR10, folder)
    arrays = decoded(path, "cifar10", lambda: _decode(path))
    recompressed = bool(arrays.pop("recompressed").item())
    return Cifar10(**arrays, called=_called(recompressed=recompressed))


def called() -> str:
    """Return what to call results on the images that `load` would find, without decoding them."""
    path = present(CIFAR10)
    if path is None:
        return NAME
    try:
        names = (name for name, _ in _files(path))
        first = next((name for name in names if _is_batch(name) or _is_picture(name)), None)
    except (tarfile.TarError, EOFError, OSError):
        return NAME  # loading it will say what is wrong
    return NAME if first is None else _called(recompressed=_is_recompressed(first))


def _called(*, recompressed: bool) -> str:
    return f"{NAME} (JPEG)" if recompressed else NAME


def _is_batch(name: PurePosixPath) -> bool:
    return name.name.startswith(("data_batch", "test_batch"))


def _is_picture(name: PurePosixPath) -> bool:
    return name.suffix.lower() in (".jpg", ".jpeg", ".png") and len(name.parts) >= 3


def _is_recompressed(name: PurePosixPath) -> bool:
    return name.suffix.lower() in (".jpg", ".jpeg")


def _decode(path: Path) -> Arrays:
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"train": [], "test": []}
    pictures: dict[str, list[tuple[str, np.ndarray, int]]] = {"train": [], "test": []}
    recompressed = False
    try:
        for name, read in _files(path):
            where = f"{path}:{name}"
            part = "test" if name.name.startswith("test_batch") else "train"
            if _is_batch(name):
                unpack = _binary if name.suffix == ".bin" else _pickled
                parts[part].append(unpack(where, read()))
            elif _is_picture(name):
                split, label = name.parts[-3], name.parts[-2]
                if split not in pictures or label not in CLASSES:
                    raise DataError(f"{where}: expected train or test, then one of {', '.join(CLASSES)}")
                pictures[split].append((str(name), _picture(where, read()), CLASSES.index(label)))
                recompressed |= _is_recompressed(name)
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise DataError(f"{path} is not a complete archive: {error}") from None
    for split, found in pictures.items():
        found.sort(key=lambda one: one[0])
        if found:
            labels = np.array([label for *_, label in found], np.int64)
            parts[split].append((np.stack([image for _, image, _ in found]), labels))
    for split, found in parts.items():
        if not found:
            raise DataError(f"{path} holds no {split} images")
    arrays: Arrays = {"recompressed": np.array(recompressed)}
    for split, found in parts.items():
        arrays[split] = np.concatenate([images for images, _ in found])
        arrays[f"{split}_labels"] = np.concatenate([labels for _, labels in found])
    return arrays


def _files(path: Path) -> Iterator[File]:
    """Yield the files of a folder or an archive, those of a folder in order of their names."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield PurePosixPath(file.relative_to(path.parent).as_posix()), file.read_bytes
        return
    with tarfile.open(path, "r|*") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if member.isfile() and content is not None:
                yield PurePosixPath(path.stem, member.name), content.read


def _binary(where: str, raw: bytes) -> tuple[np.ndarray, np.ndarray]:
    if not raw or len(raw) % RECORD:
        raise DataError(f"{where} has {len(raw)} bytes, expected a multiple of {RECORD}")
    records = np.frombuffer(raw, np.uint8).reshape(-1, RECORD)
    return _checked(where, records[:, 1:], records[:, 0])


def _pickled(where: str, raw: bytes) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = _ArraysOnly(io.BytesIO(raw), encoding="bytes").load()
        images, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    except Exception as error:
        raise DataError(f"{where} is not a batch of CIFAR-10: {type(error).__name__}: {error}") from None
    if images.dtype != np.uint8 or images.shape != (len(labels), RECORD - 1):
        raise DataError(f"{where} holds images of shape {images.shape} and type {images.dtype}")
    return _checked(where, images, labels)


def _checked(where: str, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if labels.max() > 9 or labels.min() < 0:
        raise DataError(f"{where} holds the label {labels.max()}, expected 0 to 9")
    return images.reshape(-1, 3, 32, 32), labels.astype(np.int64)


def _picture(where: str, raw: bytes) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(raw)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except Exception as error:
        raise DataError(f"{where} is not a readable image: {error}") from None
    if pixels.shape != (32, 32, 3):
        raise DataError(f"{where} has {pixels.shape[1]} x {pixels.shape[0]} pixels, expected 32 x 32")
    return pixels.transpose(2, 0, 1)


class _ArraysOnly(pickle.Unpickler):
    """Reads CIFAR-10's pickles, which hold numpy arrays and nothing that could run code."""

    ALLOWED = frozenset({("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")})

    def find_class(self, module_name: str, global_name: str) -> object:
        if global_name == "_reconstruct" and module_name.startswith("numpy"):
            return np.ndarray.__reduce__(np.zeros(1))[0]  # wherever this version of numpy keeps it
        if (module_name, global_name) in self.ALLOWED:
            return super().find_class(module_name, global_name)
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is not allowed here")
