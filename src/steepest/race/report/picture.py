"""One PNG of the race: validation curves and final losses, a row for each task."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from steepest.race.report.charts import curve_range, final_axis
from steepest.race.report.document import write_atomically
from steepest.race.report.markup import clean
from steepest.race.report.palette import LIGHT, Look, looks
from steepest.race.report.svg import Axis, short, spanning, spread, tick_text
from steepest.race.statistics import Summary, TaskSummary, format_estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = {
    "circle": "o",
    "square": "s",
    "triangle": "^",
    "diamond": "D",
    "down": "v",
    "plus": "P",
    "hexagon": "h",
    "bar": "|",
}
_INK, _SOFT, _RULE = "#1b2026", "#5a6470", "#dfe3e8"


def write_curves_png(
    summary: Summary, path: str | os.PathLike[str], *, only: TaskSummary | None = None, dpi: int = 160
) -> Path:
    """Draw validation curves (left) and final losses with intervals (right), and return the path written.

    Args:
        summary: of all tasks; it decides how every optimizer looks.
        path: the file to write.
        only: the one task to draw; by default each has a row.
        dpi: dots per inch; the picture is 10 inches wide and 3.5 high for each task.

    Raises:
        ValueError: no task of the summary has a curve to draw.
        OSError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    wanted = summary.tasks if only is None else (only,)
    tasks = [task for task in wanted if any(o.validation for o in task.optimizers)]
    if not tasks:
        raise ValueError("the summary holds no validation curve to draw")
    style = looks(summary)
    figure = Figure(figsize=(10, 3.5 * len(tasks)), facecolor="white")
    FigureCanvasAgg(figure)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
    axes = figure.subplots(len(tasks), 2, squeeze=False, width_ratios=(1.5, 1))
    for task, (left, right) in zip(tasks, axes, strict=True):
        _draw_curves(task, left, style)
        _draw_finals(task, right, style)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that is no reason to fail.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", dpi=dpi)
    return write_atomically(path, buffer.getvalue())


def _draw_curves(task: TaskSummary, ax: Axes, style: dict[str, Look]) -> None:
    drawn = [(o, o.validation) for o in task.optimizers if o.validation is not None]
    values = curve_range([curve for _, curve in drawn])
    if task.target is not None:
        values.append(task.target)
        ax.axhline(task.target, color=_INK, linewidth=0.8, linestyle=(0, (1, 2.5)), zorder=1)
    y = spanning(values, 0.0, 1.0)
    last = max(curve.steps[-1] for _, curve in drawn)
    for o, curve in drawn:
        look = style[o.name]
        colour = LIGHT[look.colour]
        dash = (0, tuple(float(part) * 0.8 for part in look.dash.split())) if look.dash else "-"
        ax.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.14, linewidth=0)
        ax.plot(curve.steps, curve.mean, color=colour, linestyle=dash, linewidth=1.6)
        ax.plot(*_some(curve.steps, curve.mean), _MARKERS[look.marker], color=colour, markersize=4)
    _set_scale(ax, y)
    ax.set_xlim(0, last * 1.02)
    ends = [min(1.0, max(0.0, y.at(curve.mean[-1]))) for _, curve in drawn]
    for (o, _), at in zip(drawn, spread(ends, 0.075, 0.0, 1.0), strict=True):
        look = style[o.name]
        ax.plot(
            [1.03],
            [at],
            _MARKERS[look.marker],
            color=LIGHT[look.colour],
            markersize=5,
            transform=ax.transAxes,
            clip_on=False,
        )
        ax.text(
            1.05, at, _plain(short(o.name, 16)), transform=ax.transAxes, va="center", fontsize=9, color=_INK
        )
    ax.set_title(_plain(task.name), loc="left", fontsize=12, fontweight="bold", color=_INK)
    ax.set_xlabel("steps", fontsize=9, color=_SOFT)
    ax.set_ylabel("validation loss" + (" (log)" if y.log else ""), fontsize=9, color=_SOFT)
    _quiet(ax)


def _draw_finals(task: TaskSummary, ax: Axes, style: dict[str, Look]) -> None:
    ranked = [(o, o.loss) for o in task.optimizers if o.loss is not None]
    axis = final_axis(task, 0.0, 1.0)
    for i, (o, loss) in enumerate(ranked):
        look = style[o.name]
        colour = LIGHT[look.colour]
        if axis is not None and loss.mean > axis.high:
            words = f"{format_estimate(loss)}  →"
            ax.text(0.99, i, words, transform=ax.get_yaxis_transform(), ha="right", va="center", fontsize=9)
            continue
        if loss.low is not None and loss.high is not None:
            ax.plot([loss.low, loss.high], [i, i], color=colour, linewidth=1.6, solid_capstyle="butt")
        ax.plot([loss.mean], [i], _MARKERS[look.marker], color=colour, markersize=7)
        seeds = [v for _, v in o.seed_losses]
        ax.plot(seeds, [i] * len(seeds), "o", markerfacecolor="none", markeredgecolor=_INK, markersize=4)
    if axis is not None:
        _set_scale(ax, axis, horizontal=True)
    ax.set_yticks(range(len(ranked)), [_plain(short(o.name, 16)) for o, _ in ranked])
    ax.set_ylim(max(len(ranked), 1) - 0.5, -0.5)
    ax.set_title("final loss: seeds, mean, 95 % interval", loc="left", fontsize=9, color=_SOFT)
    ax.set_xlabel("validation loss", fontsize=9, color=_SOFT)
    _quiet(ax)


def _set_scale(ax: Axes, axis: Axis, *, horizontal: bool = False) -> None:
    """Give a matplotlib axis the limits, scale and ticks of ours."""
    from matplotlib.ticker import NullLocator

    side, ticks = (ax.xaxis if horizontal else ax.yaxis), axis.ticks(4 if horizontal else 5)
    (ax.set_xscale if horizontal else ax.set_yscale)("log" if axis.log else "linear")
    (ax.set_xlim if horizontal else ax.set_ylim)(axis.low, axis.high)
    side.set_ticks(ticks, [tick_text(float(f"{tick:.6g}")) for tick in ticks])
    side.set_minor_locator(NullLocator())


def _some(steps: tuple[float, ...], losses: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    stride = max(1, len(steps) // 4)
    return steps[stride::stride], losses[stride::stride]


def _plain(name: str) -> str:
    """Keep matplotlib from reading a name as mathematics."""
    return clean(name).replace("$", r"\$")


def _quiet(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#8a939e")
    ax.tick_params(labelsize=9, colors=_SOFT, width=0.8)
    ax.grid(True, color=_RULE, linewidth=0.8)
    ax.set_axisbelow(True)
