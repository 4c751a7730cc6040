"""What a project that uses the library sees of its types."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import steepest

pytest.importorskip("pyright")

CONSUMER = Path(__file__).parent / "consumer"
MARK = re.compile(r"# (report\w+)$")


def checked(project: Path) -> dict[str, list[tuple[int, str]]]:
    """Return line and rule of what pyright's strict mode finds, by file.

    The library is found as an installed one is: by its ``py.typed``, not as source to be checked.
    """
    settings = {
        "typeCheckingMode": "strict",
        "include": ["."],
        "extraPaths": [str(Path(steepest.__file__).parent.parent)],
        "reportUnusedExpression": False,
        "reportUnusedVariable": False,
    }
    (project / "pyrightconfig.json").write_text(json.dumps(settings))
    call = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(call, cwd=project, capture_output=True, text=True)
    told = json.loads(done.stdout)
    assert told["summary"]["filesAnalyzed"] == 2, done.stdout
    found: dict[str, list[tuple[int, str]]] = {"uses.py": [], "mistakes.py": []}
    for entry in told["generalDiagnostics"]:
        line = entry["range"]["start"]["line"] + 1
        found[Path(entry["file"]).name].append((line, entry.get("rule", entry["message"])))
    return found


def test_uses_are_known_and_mistakes_are_found(tmp_path):
    for file in CONSUMER.glob("*.py"):
        (tmp_path / file.name).write_text(file.read_text())
    found = checked(tmp_path)
    assert found["uses.py"] == []
    lines = enumerate((CONSUMER / "mistakes.py").read_text().splitlines(), 1)
    wrong = [
        entry for entry in found["mistakes.py"] if not entry[1].startswith("reportUnknown")
    ]  # follow-ups
    assert wrong == [(n, mark.group(1)) for n, line in lines if (mark := MARK.search(line))]


def test_types_are_shipped():
    assert (Path(steepest.__file__).parent / "py.typed").exists()
