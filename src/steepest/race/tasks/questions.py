"""Prompts and answers for causal language models: JSON lines as their authors distribute them.

A question has one answer (instructions) or several of which one is right (multiple choice). Each line of a
file is told by its keys:

=============================================  =======================================
``passage``, ``question``, ``answer``           BoolQ: no or yes
``ctx``, ``endings``, ``label``                 HellaSwag
``question``, ``choices``, ``answerKey``        ARC, of its authors or of the hub
``question``, ``choices``, ``answer``           any multiple choice; ``answer`` is an index or one of them
``instruction``, ``input`` (or none), ``output``   instructions
``prompt``, ``response``                        instructions
=============================================  =======================================
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from steepest.race.data.lookup import DataError, Source, present

VALIDATION_PART = 0.1

KNOWN = {
    "boolq": Source("boolq", "https://storage.googleapis.com/boolq (train.jsonl, dev.jsonl)", "", ("BoolQ",)),
    "hellaswag": Source(
        "hellaswag",
        "https://github.com/rowanz/hellaswag/tree/master/data (hellaswag_train.jsonl, hellaswag_val.jsonl)",
        "",
        ("HellaSwag",),
    ),
    "arc-challenge": Source(
        "arc-challenge",
        "https://allenai.org/data/arc (ARC-Challenge-Train.jsonl, ARC-Challenge-Dev.jsonl)",
        "",
        ("ARC-Challenge", "ARC-V1-Feb2018-2/ARC-Challenge", "ARC-V1-Feb2018/ARC-Challenge"),
    ),
}
"""Folders by name, and where their files come from; without checksums of theirs nothing is downloaded."""


class Question(NamedTuple):
    """A prompt, its possible answers, and which of them is right."""

    prompt: str
    answers: tuple[str, ...]
    correct: int


class Questions(NamedTuple):
    """Questions to train on, and for validation."""

    train: list[Question]
    val: list[Question]


def source_of(dataset: str) -> Source:
    """Return where a dataset is: one of `KNOWN`, a path, or a name within the data folder."""
    if dataset in KNOWN:
        return KNOWN[dataset]
    path = Path(dataset).expanduser()
    return Source(
        str(path.resolve()) if path.exists() else dataset, "", ""
    )  # a folder / an absolute path = it


def load(dataset: str) -> Questions:
    """Load a folder with one JSON-lines file for training and one for validation, or a single file.

    A folder's files have "train" and "dev", "val" or "test" in their names; of a single file the last tenth
    is for validation.

    Raises:
        DataError: it is not there, or a file is not what it should be; the message names file and line.
    """
    source = source_of(dataset)
    path = present(source)
    if path is None:
        names = " or ".join((source.name, *source.aliases))
        origin = f" Get them from {source.url}." if source.url else f" Known: {', '.join(KNOWN)}."
        raise DataError(
            f"dataset={dataset!r}: no file or folder {names}, neither here nor in the folder of data "
            f"(--data FOLDER or STEEPEST_DATA).{origin}"
        )
    if path.is_dir():
        return Questions(_read(_file(path, ("train",))), _read(_file(path, ("dev", "val", "test"))))
    questions = _read(path)
    cut = len(questions) - max(1, round(VALIDATION_PART * len(questions)))
    if cut < 1:
        raise DataError(f"{path} holds one line, expected at least two: training and validation")
    return Questions(questions[:cut], questions[cut:])


def _file(folder: Path, words: tuple[str, ...]) -> Path:
    files = sorted(file for file in folder.iterdir() if file.suffix in (".jsonl", ".json"))
    for word in words:
        if found := [file for file in files if word in file.name.casefold()]:
            return found[0]
    held = ", ".join(file.name for file in files) or "no .jsonl file"
    raise DataError(f"{folder} has no .jsonl file with {' or '.join(words)} in its name, but {held}")


def _read(path: Path) -> list[Question]:
    found = list(_questions(path))
    if not found:
        raise DataError(f"{path} holds no questions")
    return found


def _questions(path: Path) -> Iterator[Question]:
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    yield parse(json.loads(line))
                except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                    what = f"no {error}" if isinstance(error, KeyError) else str(error)
                    raise DataError(f"{path}, line {number}: not a question: {what}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error}") from None


def parse(row: Mapping[str, Any]) -> Question:
    """Read one row by its keys.

    Raises:
        ValueError, KeyError: it is none of the known forms, or the right answer is none of its answers.

    Example:
        >>> parse({"question": "is it wet", "passage": "Rain.", "answer": True})
        Question(prompt='Rain.\\nQuestion: is it wet?\\nAnswer:', answers=(' no', ' yes'), correct=1)
    """
    if "passage" in row:
        prompt = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
        return _checked(prompt, ["no", "yes"], int(row["answer"]))
    if "endings" in row:
        return _checked(row["ctx"], row["endings"], int(row["label"]))
    if "answerKey" in row:
        return _arc(row)
    if "choices" in row:
        answer, choices = row["answer"], list(row["choices"])
        return _checked(
            _asked(row["question"]), choices, answer if isinstance(answer, int) else choices.index(answer)
        )
    if "instruction" in row:
        inside = f"\n{row['input']}" if row.get("input") else ""
        return _checked(f"Instruction: {row['instruction']}{inside}\nResponse:", [row["output"]], 0)
    if "prompt" in row:
        return _checked(row["prompt"], [row["response"]], 0)
    raise ValueError(f"its keys are {', '.join(row) or 'none'}")


def _arc(row: Mapping[str, Any]) -> Question:
    question, choices = row["question"], row.get("choices")
    if isinstance(question, Mapping):  # as its authors write it; the hub has columns instead
        question, choices = question["stem"], question["choices"]
    if isinstance(choices, Mapping):
        choices = [{"text": t, "label": n} for t, n in zip(choices["text"], choices["label"], strict=True)]
    labels = [choice["label"] for choice in choices or ()]
    if row["answerKey"] not in labels:
        raise ValueError(f"answerKey {row['answerKey']!r} is none of {labels}")
    return _checked(_asked(question), [c["text"] for c in choices or ()], labels.index(row["answerKey"]))


def _asked(question: str) -> str:
    return f"Question: {question}\nAnswer:"


def _checked(prompt: str, answers: list[str], correct: int) -> Question:
    if not 0 <= correct < len(answers):
        raise ValueError(f"the right answer is number {correct} of {len(answers)}")
    if not all(isinstance(text, str) and text.strip() for text in (prompt, *answers)):
        raise ValueError("prompt and answers must be text")
    return Question(prompt, tuple(f" {answer.strip()}" for answer in answers), correct)
