"""One page as a complete document, and files replaced in one move."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from steepest.race.report.markup import Markup, tag
from steepest.race.report.style import style_sheet


def document(title: str, *parts: object) -> str:
    """Return a page of HTML that needs nothing but itself."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(style_sheet())),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", tag("main", *parts)), lang="en") + "\n"


def write_atomically(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file beside `path` and move it there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path
