"""Files as distributed, and what is said of broken ones."""

import gzip
import io
import itertools
import os
import pickle
import struct
import tarfile
import zipfile
from typing import Any

import numpy as np
import pytest
import torch

from steepest.race.data import augment, cifar, glue, idx, libsvm, sources, text
from steepest.race.data.decoded import decoded
from steepest.race.data.lookup import DataError

pytest.importorskip("PIL")


def idx_bytes(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def fashion(tmp_path):
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("t10k", 3)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))  # unpacked
    return folder


def test_idx(fashion):
    images = idx.load(sources.FASHION_MNIST, fashion.parent)
    assert images.train.shape == (6, 28, 28)
    assert images.test_labels.tolist() == [0, 1, 2]
    raw = gzip.decompress((fashion / "t10k-images-idx3-ubyte.gz").read_bytes())
    assert images.test.numpy().tobytes() == raw[16:]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("train-images-idx3-ubyte.gz", b"\x1f\x8b\x08\x00", "not a complete gzip file"),
        ("train-images-idx3-ubyte.gz", gzip.compress(b"<html>"), "not an IDX file"),
        ("train-images-idx3-ubyte.gz", gzip.compress(idx_bytes(np.zeros(6, np.uint8))), "exchanged"),
        (
            "train-labels-idx1-ubyte",
            idx_bytes(np.zeros(6, np.uint8))[:-1],
            "header says 6",
        ),
        ("train-labels-idx1-ubyte", idx_bytes(np.zeros(5, np.uint8)), "5 labels, but"),
        ("train-labels-idx1-ubyte", idx_bytes(np.full(6, 11, np.uint8)), "the label 11, expected 0 to 9"),
        ("train-labels-idx1-ubyte", b"\0\0\x08\x01\0", "ends within its header"),
    ],
    ids=itertools.count(),  # a compressed file holds the time, which a test's name must not
)
def test_broken_idx(fashion, file, content, said):
    (fashion / file).write_bytes(content)
    with pytest.raises(DataError, match=said) as raised:
        idx.load(sources.FASHION_MNIST, fashion.parent)
    assert file in str(raised.value)


def pictures(count, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), rng.integers(0, 10, count)


def binary(images, labels):
    return np.concatenate([labels[:, None].astype(np.uint8), images.reshape(len(images), -1)], 1).tobytes()


def tar_of(path, files, mode: Any = "w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def batches():
    names = [f"data_batch_{i}" for i in range(1, 3)] + ["test_batch"]
    return {name: pictures(4, seed) for seed, name in enumerate(names)}


def check_batches(found, batches):
    assert np.array_equal(found.train, np.concatenate([batches[f"data_batch_{i}"][0] for i in (1, 2)]))
    assert np.array_equal(found.test, batches["test_batch"][0])
    assert np.array_equal(found.test_labels, batches["test_batch"][1])
    assert found.called == "CIFAR-10"


def test_cifar_binary_archive_and_folder(tmp_path, batches):
    files = {f"cifar-10-batches-bin/{name}.bin": binary(*batch) for name, batch in batches.items()}
    files["cifar-10-batches-bin/readme.html"] = b"<html>"
    tar_of(tmp_path / "cifar-10-binary.tar.gz", files)
    check_batches(cifar.load(tmp_path), batches)
    folder = tmp_path / "other" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder.parent / name).write_bytes(content)
    check_batches(cifar.load(folder.parent), batches)


def test_cifar_pickles(tmp_path, batches):
    files = {
        f"cifar-10-batches-py/{name}": pickle.dumps(
            {b"data": images.reshape(len(images), -1), b"labels": labels.tolist()}, protocol=2
        )
        for name, (images, labels) in batches.items()
    }
    tar_of(tmp_path / "cifar-10-python.tar.gz", files)
    check_batches(cifar.load(tmp_path), batches)


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


def test_cifar_pickles_cannot_run_code(tmp_path):
    tar_of(tmp_path / "cifar-10-python.tar.gz", {"cifar-10-batches-py/data_batch_1": pickle.dumps(Evil())})
    with pytest.raises(DataError, match=r"data_batch_1 is not a batch.*system is not allowed"):
        cifar.load(tmp_path)


def image_files(kind):
    from PIL import Image

    files = {}
    for split, count in (("train", 2), ("test", 1)):
        for label in cifar.CLASSES:
            for i in range(count):
                content = io.BytesIO()
                Image.new("RGB", (32, 32), (25 * cifar.CLASSES.index(label), i, 200)).save(content, kind)
                files[f"{split}/{label}/{i:04}.{kind.lower()}"] = content.getvalue()
    return files


@pytest.mark.parametrize(("kind", "called"), [("PNG", "CIFAR-10"), ("JPEG", "CIFAR-10 (JPEG)")])
def test_cifar_images(tmp_path, kind, called):
    files = image_files(kind)
    shuffled = dict(sorted(files.items(), key=lambda item: hash(item[1])))
    tar_of(tmp_path / "cifar10-jpeg.tar.xz", shuffled, "w:xz")
    found = cifar.load(tmp_path)
    assert found.called == called
    assert found.train_labels.tolist() == [label for label in range(10) for _ in range(2)]
    reds = found.test[:, 0].float().mean((1, 2))
    assert torch.allclose(reds, 25.0 * torch.arange(10), atol=4)
    folder = tmp_path / "unpacked" / "cifar10"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    again = cifar.load(folder.parent)
    assert torch.equal(again.train, found.train)
    assert torch.equal(again.train_labels, found.train_labels)


def test_broken_cifar(tmp_path, batches):
    path = tmp_path / "cifar-10-binary.tar.gz"
    files = {f"cifar-10-batches-bin/{name}.bin": binary(*batch) for name, batch in batches.items()}
    tar_of(path, files)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a complete archive"):
        cifar.load(tmp_path)
    tar_of(path, {"b/data_batch_1.bin": files["cifar-10-batches-bin/data_batch_1.bin"][:-1]})
    with pytest.raises(DataError, match=r"data_batch_1.bin has \d+ bytes, expected a multiple of 3073"):
        cifar.load(tmp_path)
    tar_of(path, {"b/data_batch_1.bin": b"\x0b" + bytes(3072)})
    with pytest.raises(DataError, match="label 11, expected 0 to 9"):
        cifar.load(tmp_path)
    tar_of(path, {"b/data_batch_1.bin": bytes(3073)})
    with pytest.raises(DataError, match="holds no test images"):
        cifar.load(tmp_path)
    tar_of(path, {"train/zebra/1.png": b""})
    with pytest.raises(DataError, match="zebra"):
        cifar.load(tmp_path)
    tar_of(path, {"train/cat/1.png": b"no"})
    with pytest.raises(DataError, match=r"train/cat/1.png is not a readable image"):
        cifar.load(tmp_path)


def test_libsvm(tmp_path):
    (tmp_path / "mushrooms").write_text("2 1:1 3:0.5\n1 2:1\n2 4:2\n")
    table = libsvm.load(sources.MUSHROOMS, 4, tmp_path)
    assert table.labels.tolist() == [1, 0, 1]
    assert table.features.tolist() == [[1, 0, 0.5, 0], [0, 1, 0, 0], [0, 0, 0, 2]]
    scaled = libsvm.scaled(table, 3.0, torch.Generator().manual_seed(0))
    factors = (scaled.features.sum(0) / table.features.sum(0)).log()
    assert factors.abs().max() <= 3
    assert factors.std() > 0.5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1 1:1\n2 9:1\n", "not a LIBSVM file of 4 features"),
        ("1 1:one\n", "not a LIBSVM file"),
        ("1 1:1\n1 2:1\n", "the labels"),
        ("1 1:1\n2 2:nan\n", "not finite"),
    ],
)
def test_broken_libsvm(tmp_path, content, said):
    (tmp_path / "mushrooms").write_text(content)
    with pytest.raises(DataError, match=said):
        libsvm.load(sources.MUSHROOMS, 4, tmp_path)


def test_glue_in_all_forms(tmp_path):
    (tmp_path / "sst2_train.tsv").write_text('label\tsentence\n1\ta "quoted film\n0\tdull .\n')
    (tmp_path / "sst2_dev.tsv").write_text("label\tcontent\n1\tgood\n")
    pair = glue.load(sources.SST2, tmp_path)
    assert pair.train == glue.Sentences(['a "quoted film', "dull ."], [1, 0])
    assert pair.dev == glue.Sentences(["good"], [1])
    folder = tmp_path / "CoLA"
    folder.mkdir()
    for part in ("train", "dev"):
        (folder / f"{part}.tsv").write_text("gj04\t0\t*\tThem went .\ngj04\t1\t\tThey went .\n")
    assert glue.load(sources.COLA, tmp_path).dev == glue.Sentences(["Them went .", "They went ."], [0, 1])
    zipped = tmp_path / "zipped"
    zipped.mkdir()
    with zipfile.ZipFile(zipped / "SST-2.zip", "w") as archive:
        for part in ("train", "dev", "test"):
            archive.writestr(f"SST-2/{part}.tsv", "sentence\tlabel\nfine\t1\n")
            archive.writestr(f"SST-2/original/{part}.tsv", "x")
    assert glue.load(sources.SST2, zipped).train == glue.Sentences(["fine"], [1])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("label\tsentence\n2\tfine\n", r"line 2: expected a sentence and a label 0 or 1, got '2'"),
        ("label\tsentence\n1\t \n", "line 2"),
        ("label\tsentence\n1\n", "line 2: 1 columns, expected at least 2"),
        ("label\tsentence\n", "holds no sentences"),
    ],
)
def test_broken_glue(tmp_path, content, said):
    for part in ("train", "dev"):
        (tmp_path / f"sst2_{part}.tsv").write_text(content)
    with pytest.raises(DataError, match=said):
        glue.load(sources.SST2, tmp_path)


def test_half_of_glue(tmp_path):
    (tmp_path / "sst2_train.tsv").write_text("label\tsentence\n1\tfine\n")
    with pytest.raises(DataError, match=r"sst2_dev.tsv is missing"):
        glue.load(sources.SST2, tmp_path)
    (tmp_path / "SST-2.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match="not a complete zip"):
        glue.load(sources.SST2, tmp_path)


def test_text(tmp_path):
    path = tmp_path / "tinyshakespeare.txt"
    path.write_text("née abcabcabc ∀", encoding="utf-8")
    read = text.load(sources.TINY_SHAKESPEARE, tmp_path)
    found = text.encode(read, validation=0.2)
    assert found.vocabulary == len(set(read))
    letters = sorted(set(read))
    assert "".join(letters[i] for i in [*found.train, *found.val]) == read
    assert len(found.val) == 3
    path.write_bytes(b"ab\xff")
    with pytest.raises(DataError, match="byte 2 is 0xff"):
        text.load(sources.TINY_SHAKESPEARE, tmp_path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        text.load(sources.TINY_SHAKESPEARE, tmp_path)


def test_decoded_once_and_again_when_the_file_changes(tmp_path, cache):
    path, calls = tmp_path / "file", []
    path.write_text("a")

    def decode():
        calls.append(1)
        return {"numbers": np.arange(5)}

    first = decoded(path, "x", decode)["numbers"]
    second = decoded(path, "x", decode)["numbers"]
    second += 1  # a copy: the file must not change
    assert torch.equal(decoded(path, "x", decode)["numbers"], first)
    assert len(calls) == 1
    path.write_text("ab")
    decoded(path, "x", decode)
    assert len(calls) == 2


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("a")
    monkeypatch.setenv("STEEPEST_CACHE", str(path / "below a file"))
    assert decoded(path, "x", lambda: {"numbers": np.arange(3)})["numbers"].tolist() == [0, 1, 2]


def test_crops_and_flips():
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).reshape(2, 3, 8, 8) + 1
    images = images.repeat(200, 1, 1, 1)
    found = augment.crop_and_flip(images, torch.Generator().manual_seed(0), padding=2)
    assert found.shape == images.shape

    def cut(image, y, x, mirrored):
        part = image[:, y : y + 8, x : x + 8]
        return part.flip(2) if mirrored else part

    places = list(itertools.product(range(5), range(5), (False, True)))
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    seen = set()
    for before, after in zip(padded, found, strict=True):
        matches = [place for place in places if torch.equal(cut(before, *place), after)]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) == 50
    again = augment.crop_and_flip(images, torch.Generator().manual_seed(0), padding=2)
    assert torch.equal(again, found)
