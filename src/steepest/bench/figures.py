"""The two scaling figures, as SVG that is the same for the same results."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from steepest.race.report.palette import DASHES, LIGHT


def growth(points: Sequence[dict[str, Any]], key: str, label: str) -> str:
    """Return a log-log figure of step times against ``key``, a line for each optimizer, named at its end.

    Raises:
        ValueError: no point has a time.
        ImportError: matplotlib is not installed.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    known = [p for p in points if "ms" in p]
    if not known:
        raise ValueError("no optimizer was measured, so there is nothing to draw")
    settings: Any = {"svg.hashsalt": "steepest", "svg.fonttype": "none", "font.family": "sans-serif"}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(8, 4.6), facecolor="white", layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        names = list(dict.fromkeys(p["name"] for p in known))
        for i, name in enumerate(names):
            own = sorted((p[key], p["ms"]) for p in known if p["name"] == name)
            x, y = [a for a, _ in own], [b for _, b in own]
            turn = i // len(LIGHT)
            dash = DASHES[(i + 3 * turn) % len(DASHES)]
            axes.plot(
                x,
                y,
                color=LIGHT[i % len(LIGHT)],
                linestyle=(0, tuple(float(part) * 0.7 for part in dash.split())) if dash else "-",
                marker="os^DvPh*"[i % 8],
                markersize=4,
                linewidth=1.4,
                label=name,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        ticks = sorted({p[key] for p in known})
        axes.set_xticks(ticks, [f"{t / 1e6:.0f}M" if t >= 1e6 else str(t) for t in ticks])
        axes.minorticks_off()
        axes.set_xlabel(label)
        axes.set_ylabel("step, ms")
        axes.grid(True, color="#dfe3e8", linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside right upper", frameon=False, fontsize=9)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"
