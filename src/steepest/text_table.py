"""Rows of text in aligned columns."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, the first row ruled off as its header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return [lines[0].rstrip(), "  ".join("-" * width for width in widths), *(x.rstrip() for x in lines[1:])]
