"""Sentences with labels 0 and 1: GLUE's SST-2 and CoLA, as TSV files, a folder or the zip of GLUE."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from steepest.race.data.lookup import DataError, Source, find


class Sentences(NamedTuple):
    """Sentences and their labels."""

    sentences: list[str]
    labels: list[int]


class Pair(NamedTuple):
    """The two parts whose labels are public."""

    train: Sentences
    dev: Sentences


def load(source: Source, folder: str | Path | None = None) -> Pair:
    """Load SST-2 or CoLA, one of the sources in :mod:`steepest.race.data.sources`.

    Raises:
        DataError: a file is missing, or a line has no sentence or another label than 0 and 1.
    """
    path = find(source, folder)
    if path.suffix == ".zip":
        return Pair(*(_parse(*_member(path, part)) for part in ("train", "dev")))
    if path.is_dir():
        files = [path / f"{part}.tsv" for part in ("train", "dev")]
    else:  # NAME_train.tsv beside NAME_dev.tsv
        files = [path, path.with_name(path.name.replace("train", "dev"))]
    return Pair(*(_parse(str(file), _text(file)) for file in files))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{file} is missing: training and development file belong together") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text: {error}") from None


def _member(path: Path, part: str) -> tuple[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            parts = [n for n in archive.namelist() if n.endswith(f"/{part}.tsv") and n.count("/") == 1]
            if not parts:
                raise DataError(f"{path} holds no {part}.tsv")
            return f"{path}:{parts[0]}", archive.read(parts[0]).decode("utf-8")
    except zipfile.BadZipFile as error:
        raise DataError(f"{path} is not a complete zip file: {error}") from None


def _parse(name: str, text: str) -> Sentences:
    """Read by the header's names, or without one by the number of columns."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    found = Sentences([], [])
    for number, sentence, label in _columns(name, rows):
        if label not in ("0", "1") or not sentence.strip():
            raise DataError(f"{name}, line {number}: expected a sentence and a label 0 or 1, got {label!r}")
        found.sentences.append(sentence.strip())
        found.labels.append(int(label))
    if not found.labels:
        raise DataError(f"{name} holds no sentences")
    return found


def _columns(name: str, rows: Iterator[list[str]]) -> Iterator[tuple[int, str, str]]:
    at: tuple[int, int] | None = None
    for number, row in enumerate(rows, 1):
        named = [row.index(column) for column in ("sentence", "content") if column in row]
        if number == 1 and named and "label" in row:
            at = named[0], row.index("label")
            continue
        if at is None:  # CoLA: source, label, mark, sentence; or sentence, label
            at = (3, 1) if len(row) == 4 else (0, 1)
        if len(row) <= max(at):
            raise DataError(f"{name}, line {number}: {len(row)} columns, expected at least {max(at) + 1}")
        yield number, row[at[0]], row[at[1]]
