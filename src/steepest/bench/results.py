"""The results file: one JSON object, rewritten whole after every part, so that an interrupted run goes on.

    {"schema": 1, "complete": bool, "key": str, "command": str, "machine": {...}, "versions": {...},
     "missing": {name: why}, "panels": [panel, ...], "copy_bytes_per_second": float,
     "import_seconds": [float, ...], "orthogonality": [...], "scaling": {"count": [...], "side": [...]}}

A panel is one family on one set: {"set", "title", "family", "parameters", "complete", "load", "rows"}; a row
has "name", "library", "method", "cycle", "note", and either "error" or "times_ms" (one number a round),
"first_ms", "state_bytes_per_parameter", "peak_bytes".
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from steepest.bench.contenders import BenchError

SCHEMA = 1
Results = dict[str, Any]


def read(path: Path) -> Results | None:
    """Return the results of a file; None where there is none.

    Raises:
        BenchError: the file cannot be read or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise BenchError(f"{path} does not hold results of `steepest bench`; name another --out") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise BenchError(f"{path} does not hold results of this `steepest bench`; name another --out")
    return found


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        BenchError: it cannot be written.
    """
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8", newline="\n")
        os.replace(beside, path)
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror}") from None


def dump(results: Results) -> str:
    """Return results as JSON text, a row a line."""
    return _compact(json.dumps(results, indent=1, ensure_ascii=False)) + "\n"


def _compact(text: str) -> str:
    """Join lists of numbers into one line."""
    lines: list[str] = []
    inside = False
    for line in text.splitlines():
        bare = line.strip()
        number = bare.rstrip(",").replace(".", "", 1).replace("-", "").replace("e", "").isdigit()
        if inside and (number or bare.startswith("]")):
            lines[-1] += bare if bare.startswith("]") or lines[-1].endswith("[") else f" {bare}"
            inside = number
            continue
        lines.append(line)
        inside = line.endswith("[")
    return "\n".join(lines)
