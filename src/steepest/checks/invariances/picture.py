"""The table as a picture: a heat map of deviations with the numbers in its cells."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

from steepest.checks.invariances.measure import INVARIANT, cell
from steepest.checks.invariances.table import Row, columns

ROUNDING, LARGEST = -16.0, 1.0
"""Ends of the colour scale: powers of ten."""


def draw(rows: Sequence[Row], path: Path, dpi: int = 100) -> None:
    """Write a PNG: a row for each method, deviations as number and shade (log10), frames where 0 is due.

    Raises:
        ValueError: no row was measured.
        OSError: the file cannot be written.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    names, shown = columns(rows), [row for row in rows if row.measured is not None]
    if not shown:
        raise ValueError("no method was measured, so there is nothing to draw")
    figure = Figure(figsize=(8.2, 1.6 + 0.3 * len(shown)), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shades = colormaps["Blues_r"]
    for i, row in enumerate(shown):
        for j, name in enumerate(names):
            value = row.measured.deviation(name) if row.measured else None
            depth = _depth(value)
            fill = "white" if depth is None else shades(0.1 + 0.9 * depth)
            axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=fill, edgecolor="white"))
            if row.expected(name) == "yes":
                frame = Rectangle(
                    (j - 0.47, i - 0.44), 0.94, 0.88, fill=False, edgecolor="#d1495b", linewidth=1.8, zorder=2
                )
                axes.add_patch(frame)
            surprise = name in row.surprises()
            ink = "white" if depth is not None and depth < 0.5 else "#1b2026"
            weight = "bold" if surprise or (value is not None and value <= INVARIANT) else "normal"
            words = "undefined" if value is None else cell(value) + (" !" if surprise else "")
            axes.text(j, i, words, ha="center", va="center", fontsize=8, color=ink, fontweight=weight)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xticks(range(len(names)), names, fontsize=9)
    axes.set_yticks(range(len(shown)), [row.name for row in shown], fontsize=9)
    axes.tick_params(length=0, labelbottom=False, labeltop=True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(
        "Does the path depend on the coordinates? Relative deviation of matched trajectories",
        fontsize=10,
        pad=22,
    )
    figure.supxlabel(
        "dark, bold: invariant (at most 1e-8)     frame: predicted to be     !: measurement disagrees",
        fontsize=8,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())


def _depth(value: float | None) -> float | None:
    """Return where a deviation stands on the scale: 0 at rounding, 1 at the largest."""
    if value is None:
        return None
    power = ROUNDING if value == 0 else LARGEST if math.isinf(value) else math.log10(value)
    return min(1.0, max(0.0, (power - ROUNDING) / (LARGEST - ROUNDING)))
