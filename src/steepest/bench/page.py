"""Results in a Markdown page: tables between markers, figures beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steepest.bench.contenders import BenchError
from steepest.bench.figures import growth
from steepest.bench.results import write
from steepest.bench.tables import (
    Table,
    about,
    count_table,
    panel_table,
    remarks,
    side_table,
    target_table,
)

FIGURES = {"count": ("parameters", "parameters"), "side": ("side", "side of one square matrix")}


def markdown(results: dict[str, Any], figures: Mapping[str, str] | None = None) -> str:
    """Return all tables in Markdown; ``figures`` gives the addresses of those of ``FIGURES``."""
    parts = ["\n".join(f"- {line}" for line in about(results))]
    parts += ["### Targets", target_table(results).markdown()]
    last = None
    for panel in results["panels"]:
        if panel["set"] != last:
            parts.append(f"### {panel['title']}")
            last = panel["set"]
        table = panel_table(panel)
        caption = table.caption.rpartition("; ")[2]
        parts.append(Table(caption, table.titles, table.rows).markdown() if table.rows else f"**{caption}**")
        parts += ["\n".join(f"- {line}" for line in remarks(panel))]
    grown = results.get("scaling", {})
    for name, title, table in (
        ("count", "Time against parameters", count_table),
        ("side", "Time against a matrix's side", side_table),
    ):
        if grown.get(name):
            parts += [f"### {title}", table(grown[name]).markdown()]
            missing = {p["error"] for p in grown[name] if "error" in p}
            if missing:
                parts.append("–: not measured, a point of this size would take minutes.")
            if figures and name in figures:
                parts.append(f"![{title}]({figures[name]})")
    return "\n\n".join(part for part in parts if part)


def update(page: Path, results: dict[str, Any]) -> list[Path]:
    """Write tables into the page between its markers for the device, and figures into ``assets`` beside it.

    The markers are ``<!-- bench:cpu begin -->`` and ``<!-- bench:cpu end -->``; for CUDA, ``cuda``.

    Returns:
        the files written.

    Raises:
        BenchError: the page is missing, lacks its markers, or cannot be written.
    """
    device = results["machine"]["device"]
    head, tail = marked(page, device)
    written, figures = [page], {}
    for name, (key, label) in FIGURES.items():
        points = results.get("scaling", {}).get(name, [])
        if any("ms" in point for point in points):
            path = page.parent / "assets" / f"scaling_{key}_{device}.svg"
            write(path, growth(points, key, label))
            figures[name] = os.path.relpath(path, page.parent).replace(os.sep, "/")
            written.append(path)
    write(page, f"{head}\n\n{markdown(results, figures)}\n\n{tail}")
    return written


def marked(page: Path, device: str) -> tuple[str, str]:
    """Return what stands before and after the place for a device's tables, its markers included.

    Raises:
        BenchError: the page cannot be read or lacks the markers.
    """
    begin, end = (f"<!-- bench:{device} {word} -->" for word in ("begin", "end"))
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise BenchError(f"cannot read {page}: {error.strerror}") from None
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise BenchError(f"{page} has no lines {begin} and {end} to write between")
    return head + begin, end + tail
