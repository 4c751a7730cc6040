"""Every form of a question, and what is said of files that are not questions."""

from __future__ import annotations

import json

import pytest

from steepest.race.data.lookup import DataError
from steepest.race.tasks import questions
from steepest.race.tasks.questions import Question, parse


@pytest.mark.parametrize(
    ("row", "question"),
    [
        (
            {"question": "is it wet", "passage": "Rain.", "answer": False, "title": "x"},
            Question("Rain.\nQuestion: is it wet?\nAnswer:", (" no", " yes"), 0),
        ),
        (
            {"ctx": "A man sits.", "endings": ["He stands.", "It rains."], "label": 1, "ind": 3},
            Question("A man sits.", (" He stands.", " It rains."), 1),
        ),
        (
            {
                "question": {
                    "stem": "Why?",
                    "choices": [{"text": "a", "label": "A"}, {"text": "b", "label": "B"}],
                },
                "answerKey": "B",
            },
            Question("Question: Why?\nAnswer:", (" a", " b"), 1),
        ),
        (
            {"question": "Why?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "1"},
            Question("Question: Why?\nAnswer:", (" a", " b"), 0),
        ),
        (
            {"question": "Why?", "choices": ["a", "b"], "answer": "b"},
            Question("Question: Why?\nAnswer:", (" a", " b"), 1),
        ),
        (
            {"instruction": "Add.", "input": "1 2", "output": "3"},
            Question("Instruction: Add.\n1 2\nResponse:", (" 3",), 0),
        ),
        ({"prompt": "Hello", "response": "you"}, Question("Hello", (" you",), 0)),
    ],
)
def test_forms(row, question) -> None:
    assert parse(row) == question


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"questions.jsonl, line 2: not a question: Expecting property name"),
        ('{"a": 1, "b": 2}', "line 2: not a question: its keys are a, b"),
        ('{"prompt": "x"}', "line 2: not a question: no 'response'"),
        ('{"prompt": "x", "response": " "}', "line 2: not a question: prompt and answers must be text"),
        ('{"ctx": "x", "endings": ["y"], "label": 4}', "the right answer is number 4 of 1"),
        (
            '{"question": "x", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "B"}',
            "answerKey 'B' is none",
        ),
        ("[]", "line 2: not a question"),
    ],
)
def test_lines_that_are_no_questions(tmp_path, line, message) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(json.dumps({"prompt": "a", "response": "b"}) + "\n" + line + "\n")
    with pytest.raises(DataError, match=message):
        questions.load(str(file))


def test_where_files_are(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("STEEPEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STEEPEST_DATA", str(tmp_path))
    line = json.dumps({"passage": "p", "question": "q", "answer": True}) + "\n"
    with pytest.raises(DataError, match=r"no file or folder boolq or BoolQ.*storage\.googleapis\.com/boolq"):
        questions.load("boolq")
    with pytest.raises(DataError, match=r"dataset='mine': .* Known: boolq, hellaswag, arc-challenge"):
        questions.load("mine")
    folder = tmp_path / "BoolQ"
    folder.mkdir()
    (folder / "train.jsonl").write_text(line * 3)
    with pytest.raises(
        DataError, match=r"no .jsonl file with dev or val or test in its name, but train.jsonl"
    ):
        questions.load("boolq")
    (folder / "dev.jsonl").write_text(line)
    assert [len(part) for part in questions.load("boolq")] == [3, 1]
    assert [len(part) for part in questions.load(str(folder))] == [3, 1]
    (tmp_path / "mine.jsonl").write_text(line * 20)
    assert [len(part) for part in questions.load("mine.jsonl")] == [18, 2]
    (tmp_path / "one.jsonl").write_text(line)
    with pytest.raises(DataError, match="holds one line, expected at least two"):
        questions.load("one.jsonl")
