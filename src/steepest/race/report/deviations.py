"""How far training in other coordinates came out differently, where a task measures it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from steepest.race.report.markup import Markup, join, tag
from steepest.race.report.svg import Axis, figure, frame, label, marker, path, short, spanning, tick_text
from steepest.race.report.tables import Looks, name_cell, table
from steepest.race.statistics import DEVIATION, OptimizerSummary, TaskSummary, format_lr, format_number

SMALLEST, LARGEST = 1e-16, 1e16  # where deviations of zero and of infinity are drawn


def measures(task: TaskSummary) -> bool:
    """Whether the task trains each run a second time in other coordinates."""
    return any(o.values.get(DEVIATION) for o in task.optimizers)


def deviations(task: TaskSummary, style: Looks) -> Markup:
    """The section of one task: every seed's deviation as a picture and a table."""
    if not measures(task):
        return Markup()
    known = _sorted(task)
    rows = [
        tag(
            "tr",
            name_cell(o.name, style),
            *(tag("td", _short(value), class_="num") for value in _spread(o)),
            tag("td", len(o.values.get(DEVIATION, {})), class_="num"),
        )
        for o in known
    ]
    note = (
        "Every run is trained twice, in two coordinate systems, from matching weights on the same batches. "
        "The deviation is the largest difference of the two training losses over all steps, as a part of the "
        "first loss. A method that does not see the coordinates stays at the size of rounding errors (which "
        "grow along a run); one that does see them comes to the size of the losses themselves. Log scale; a "
        "ring for every seed."
    )
    head = ["optimizer", "median", "smallest", "largest", "seeds"]
    return join(
        [
            tag("h3", "Deviation between two coordinate systems"),
            tag("p", note, class_="note"),
            tag(
                "div",
                tag("figure", _picture(known, style, task.name)),
                table(head, rows, numeric=range(1, 5)),
                class_="pair tables",
            ),
            _twins(known, style, task.name),
        ]
    )


def _twins(optimizers: Sequence[OptimizerSummary], style: Looks, name: str) -> Markup:
    """The training curves in both coordinate systems, one small picture per optimizer."""
    drawn = [(o, o.train, o.twin) for o in optimizers if o.train and o.twin]
    if not drawn:
        return Markup()
    values = [v for _, *curves in drawn for curve in curves for v in curve.mean]
    x = Axis(0.0, max(c.steps[-1] for _, *curves in drawn for c in curves), 34.0, 250.0)
    y = spanning(values, 128.0, 32.0)
    figures: list[Markup] = []
    for o, own, twin in drawn:
        look = style[o.name]
        parts: list[Markup] = [frame(x, y, x_title="steps", y_title="", x_ticks=4, y_ticks=4)]
        for curve, kind in ((own, f"line {look.css}"), (twin, "twin")):
            points = [(x.at(s), y.at(v)) for s, v in zip(curve.steps, curve.mean, strict=True)]
            parts.append(path(points, class_=kind))
        head = tag("g", tag("title", o.name), label(short(o.name, 26), 19, 9, kind="head"))
        picture = figure(
            260,
            164,
            f"training loss of {o.name} in both coordinate systems on {name}",
            marker(look, 10, 9, 3.6),
            head,
            *parts,
            kind="chart small",
        )
        figures.append(tag("figure", picture))
    note = (
        "Training loss in the given coordinates (line) and in the others (dots), mean over the final seeds."
    )
    return join([tag("p", note, class_="note"), tag("div", *figures, class_="many")])


def across(tasks: Sequence[TaskSummary], style: Looks) -> Markup:
    """Median deviations of all tasks that measure it: optimizers down, tasks across."""
    measuring = [task for task in tasks if measures(task)]
    if not measuring:
        return Markup()
    names = dict.fromkeys(o.name for task in measuring for o in _sorted(task))
    rows: list[Markup] = []
    for name in names:
        found = [next((o for o in task.optimizers if o.name == name), None) for task in measuring]
        cells = (tag("td", _short(_spread(o)[0]) if o else "not run", class_="num") for o in found)
        rows.append(tag("tr", name_cell(name, style), *cells))
    note = (
        "Largest difference of the training losses in two coordinate systems, as a part of the first loss, "
        "median over seeds. "
        "Near rounding: the method does not see the coordinates. Near 1 or above: it does."
    )
    return tag(
        "section",
        tag("h2", "Invariance"),
        tag("p", note, class_="note"),
        table(["optimizer", *(t.name for t in measuring)], rows, numeric=range(1, len(measuring) + 1)),
        id="invariance",
    )


def _short(value: float | None) -> str:
    """Two digits, with an exponent where a plain number would be long."""
    if value is None or 1e-3 <= value < 1e3:
        return format_number(value, 2)
    return format_lr(float(f"{value:.1e}"))


def _spread(o: OptimizerSummary) -> tuple[float | None, float | None, float | None]:
    values = sorted(o.values.get(DEVIATION, {}).values())
    if not values:
        return None, None, None
    return values[(len(values) - 1) // 2], values[0], values[-1]


def _sorted(task: TaskSummary) -> list[OptimizerSummary]:
    def median(o: OptimizerSummary) -> float:
        middle = _spread(o)[0]
        return math.inf if middle is None else middle

    return sorted(task.optimizers, key=median)


def _picture(optimizers: Sequence[OptimizerSummary], style: Looks, name: str) -> Markup:
    values = [value for o in optimizers for value in _drawn(o)]
    row, bottom = 22.0, 22.0 * len(optimizers)
    axis = spanning([*values, 1.0], 146.0, 446.0, log=True)
    parts: list[Markup] = []
    for tick in _powers(axis):
        at = axis.at(tick)
        parts.append(tag("line", x1=at, x2=at, y1=0, y2=bottom, class_="grid"))
        parts.append(label(tick_text(tick), at, bottom + 12, anchor="middle", kind="tick"))
    for i, o in enumerate(optimizers):
        middle, look = (i + 0.5) * row, style[o.name]
        parts.append(marker(look, 8, middle))
        parts.append(tag("g", tag("title", o.name), label(short(o.name, 17), 18, middle, kind="name")))
        found = _drawn(o)
        if not found:
            parts.append(label("no result", 146, middle, kind="tick"))
            continue
        ends = [(axis.at(found[0]), middle), (axis.at(found[-1]), middle)]
        parts.append(path(ends, class_=f"whisker {look.css}"))
        parts.append(marker(look, axis.at(found[(len(found) - 1) // 2]), middle, 3.6))
        parts += [tag("circle", cx=axis.at(v), cy=middle, r=1.9, class_="seed") for v in found]
    return figure(460, bottom + 24, f"deviation between two coordinate systems on {name}", *parts)


def _drawn(o: OptimizerSummary) -> list[float]:
    return sorted(min(max(value, SMALLEST), LARGEST) for value in o.values.get(DEVIATION, {}).values())


def _powers(axis: Axis) -> list[float]:
    low, high = math.ceil(math.log10(axis.low)), math.floor(math.log10(axis.high))
    stride = max(1, math.ceil((high - low) / 5))
    return [10.0**p for p in range(high, low - 1, -stride)]
