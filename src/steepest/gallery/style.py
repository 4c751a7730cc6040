"""Figures that look alike, drawn without a display."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, TEXT, LIGHT = "#1f2430", "#4a5365", "#8a93a5"
FIRST, SECOND = "#0072b2", "#d55e00"


def figure(width: float, height: float) -> Figure:
    """Return an empty figure in inches; matplotlib's global state is left alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(made)
    return made


def title(axes: Axes, text: str) -> None:
    """Put a title over a panel, to the left, and quieten its frame."""
    from matplotlib.ticker import NullFormatter

    axes.set_title(text, loc="left", fontsize=9, color=INK)
    axes.tick_params(which="both", labelsize=8, color=LIGHT, labelcolor=TEXT)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    for spine in axes.spines.values():
        spine.set_color(LIGHT)


def save(made: Figure, path: str | Path) -> Path:
    """Write a figure; the format follows from the name (.png, .svg, .pdf).

    Raises:
        ValueError: another suffix.
        OSError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"the picture's name must end in .png, .svg or .pdf, got {str(path)!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the date the same figure is the same file.
    metadata = (
        {"Date": None} if path.suffix == ".svg" else {"CreationDate": None} if path.suffix == ".pdf" else {}
    )
    made.savefig(path, dpi=150, metadata=metadata)
    return path
