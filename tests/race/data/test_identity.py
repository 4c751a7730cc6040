"""Which data a key stands for."""

from dataclasses import replace
from hashlib import sha256

import pytest

from steepest.race.data import cifar
from steepest.race.data.identity import identity
from steepest.race.data.lookup import Source
from steepest.race.data.sources import CIFAR10

SOURCE = Source("text.txt", "https://example.org/text.txt", sha256(b"as distributed").hexdigest())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.setenv("STEEPEST_DATA", str(folder))
    return folder


def test_a_download_that_is_still_to_come_counts_as_done(folder):
    expected = identity([SOURCE])
    (folder / "text.txt").write_bytes(b"as distributed")
    assert identity([SOURCE]) == expected


def test_other_content_is_other_data(folder):
    (folder / "text.txt").write_bytes(b"as distributed")
    before = identity([SOURCE])
    (folder / "text.txt").write_bytes(b"recompressed")
    assert identity([SOURCE]) != before
    assert len(identity([SOURCE])) == 12
    assert identity([SOURCE]) != identity([SOURCE, SOURCE])


def test_a_folder_counts_by_names_and_sizes(folder):
    source = replace(SOURCE, aliases=("unpacked",))
    (folder / "unpacked" / "deep").mkdir(parents=True)
    (folder / "unpacked" / "deep" / "a.bin").write_bytes(b"1234")
    before = identity([source])
    assert before == identity([source])
    (folder / "unpacked" / "deep" / "a.bin").write_bytes(b"12345")
    assert identity([source]) != before


@pytest.mark.parametrize(
    ("files", "called"),
    [
        ([], "CIFAR-10"),
        (["README.md", "test_batch.bin", "train/cat/1.jpg"], "CIFAR-10"),
        (["README.md", "train/cat/0001.jpg"], "CIFAR-10 (JPEG)"),
        (["train/cat/0001.PNG"], "CIFAR-10"),
        (["train/cat/0001.JPEG"], "CIFAR-10 (JPEG)"),
        (["README.md"], "CIFAR-10"),
    ],
)
def test_what_cifar_is_called_is_known_without_decoding(folder, files, called):
    for name in files:
        file = folder / CIFAR10.aliases[-2] / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"never read")
    assert cifar.called() == called


def test_a_broken_archive_has_a_name_until_it_is_loaded(folder):
    (folder / CIFAR10.name).write_bytes(b"not an archive")
    assert cifar.called() == "CIFAR-10"
