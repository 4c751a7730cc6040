"""The figures of the report, each from the summary of one task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from steepest.race.report.markup import Markup, join, tag
from steepest.race.report.palette import Look
from steepest.race.report.svg import (
    Axis,
    figure,
    frame,
    label,
    marker,
    path,
    short,
    spanning,
    spread,
)
from steepest.race.statistics import (
    Curve,
    OptimizerSummary,
    TaskSummary,
    format_decades,
    format_lr,
    format_number,
)

Looks = Mapping[str, Look]


def smooth(curve: Curve, width: int) -> Curve:
    """Centred moving average over `width` recorded points (an odd number), shorter at the ends."""
    half = width // 2

    def average(values: Sequence[float]) -> tuple[float, ...]:
        result: list[float] = []
        for i in range(len(values)):
            reach = min(half, i, len(values) - 1 - i)
            window = values[i - reach : i + reach + 1]
            result.append(sum(window) / len(window))
        return tuple(result)

    return Curve(curve.steps, average(curve.mean), average(curve.low), average(curve.high), curve.seeds)


def curve_range(curves: Sequence[Curve]) -> list[float]:
    """The losses that the picture should show: all but the first tenth, which would flatten the rest."""
    last = max(c.steps[-1] for c in curves)
    shown: list[float] = []
    for c in curves:
        late = [i for i, step in enumerate(c.steps) if step >= 0.1 * last] or [len(c.steps) - 1]
        shown += [v for i in late for v in (c.low[i], c.mean[i])]
    return shown


def loss_curves(task: TaskSummary, looks: Looks, kind: str) -> Markup | None:
    """Mean training or validation loss against steps; the band runs from the lowest to the highest seed."""
    drawn: list[tuple[OptimizerSummary, Curve]] = []
    for o in task.optimizers:
        curve = o.train if kind == "training" else o.validation
        if curve is not None:
            drawn.append((o, smooth(curve, 5) if kind == "training" and len(curve.steps) >= 30 else curve))
    if not drawn:
        return None
    values = curve_range([c for _, c in drawn])
    target = task.target if kind == "validation" else None
    x = Axis(0.0, max(max(c.steps[-1] for _, c in drawn), 1.0), 42.0, 344.0)
    y = spanning([*values, target] if target is not None else values, 262.0, 26.0)
    clip = f"clip-{kind}-{abs(hash_name(task.name))}"
    corner = {"x": x.start, "y": y.end - 4, "width": x.end - x.start + 4, "height": y.start - y.end + 6}
    bands: list[Markup] = []
    lines: list[Markup] = []
    for k, (o, c) in enumerate(drawn):
        look = looks[o.name]
        if c.seeds > 1:
            edge = [(x.at(s), y.at(v)) for s, v in zip(c.steps, c.high, strict=True)]
            edge += [(x.at(s), y.at(v)) for s, v in reversed(list(zip(c.steps, c.low, strict=True)))]
            bands.append(path(edge, class_=f"band {look.css}"))
        points = [(x.at(s), y.at(v)) for s, v in zip(c.steps, c.mean, strict=True)]
        lines.append(path(points, class_=f"line {look.css}", stroke_dasharray=look.dash or None))
        stride = max(1, len(points) // 4)
        offset = (k * stride // max(1, len(drawn))) % stride
        lines += [marker(look, *p, 2.6) for p in points[offset:-1:stride]]
    tips = [(o.name, x.at(c.steps[-1]), y.at(c.mean[-1])) for o, c in drawn]
    goal = ""
    if target is not None:
        at = y.at(target)
        goal = tag("line", x1=x.start, x2=x.end, y1=at, y2=at, class_="goal")
    scale = ", log scale" if y.log else ""
    return figure(
        460,
        300,
        f"{kind} loss against steps on {task.name}",
        tag("clipPath", tag("rect", **corner), id=clip),
        frame(x, y, x_title="steps", y_title=f"{kind} loss{scale}"),
        goal,
        tag("g", *bands, *lines, clip_path=f"url(#{clip})"),
        *end_labels(tips, looks, x, y),
    )


def end_labels(tips: Sequence[tuple[str, float, float]], looks: Looks, x: Axis, y: Axis) -> list[Markup]:
    """Names to the right of the lines that end at `tips` (name, x, y), moved apart."""
    ends = [min(y.start, max(y.end, at)) for _, _, at in tips]
    labels: list[Markup] = []
    for (name, tip, _), end, place in zip(tips, ends, spread(ends, 16.0, y.end, y.start), strict=True):
        look = looks[name]
        labels.append(path([(tip + 2, end), (x.end + 10, place)], class_=f"leader {look.css}"))
        labels.append(marker(look, x.end + 14, place))
        labels.append(tag("g", tag("title", name), label(short(name, 13), x.end + 21, place, kind="name")))
    return labels


def hash_name(name: str) -> int:
    """A small number that is the same in every process."""
    value = 0
    for c in name:
        value = (value * 131 + ord(c)) % 1_000_003
    return value


def sweeps(task: TaskSummary, looks: Looks) -> list[Markup]:
    """Tuning loss against lr: one small picture per optimizer, common axes, the others behind it in grey."""
    swept = [o for o in task.optimizers if o.sweep]
    losses = [p.loss for o in swept for p in o.sweep if p.loss is not None]
    if not swept:
        return []
    x = spanning([p.lr for o in swept for p in o.sweep], 34.0, 250.0, log=True)
    best = min(losses, default=1.0)
    # What is far worse than everyone's best needs no resolution, nor what is far below: cut the axis there.
    minima = [min(own) for o in swept if (own := [p.loss for p in o.sweep if p.loss is not None])]
    low, high = (median(minima) / 1000, 40 * max(minima)) if best > 0 and minima else (-math.inf, math.inf)
    log = bool(losses) and best > 0 and max(losses) / best > 2.5
    y = spanning([min(max(v, low), high) for v in losses], 140.0, 44.0, log=log)
    return [_sweep(o, swept, looks, x, y, task.name) for o in swept]


def _sweep(
    o: OptimizerSummary, swept: Sequence[OptimizerSummary], looks: Looks, x: Axis, y: Axis, task: str
) -> Markup:
    look = looks[o.name]
    parts: list[Markup] = []
    if o.tunability is not None:
        left, right = x.at(o.tunability.low), x.at(o.tunability.high)
        if right - left < 1:
            left, right = left - 0.5, right + 0.5
        parts.append(
            tag("rect", x=left, y=y.end, width=right - left, height=y.start - y.end, class_="region")
        )
    parts.append(frame(x, y, x_title="lr", y_title="", x_ticks=4, y_ticks=4))
    parts += [path(line, class_="ghost") for q in swept if q is not o for line in _lines(q, x, y)]
    dash = look.dash or None
    parts += [path(line, class_=f"line {look.css}", stroke_dasharray=dash) for line in _lines(o, x, y)]
    for p in o.sweep:
        at = x.at(p.lr)
        if p.loss is not None:
            parts.append(marker(look, at, _within(y, p.loss), 2.8, hollow=p.lr != o.best_lr))
            if p.lr == o.best_lr:
                parts.append(tag("circle", cx=at, cy=_within(y, p.loss), r=6.5, class_=f"ring {look.css}"))
        else:
            kind = p.status
            cross = tag("title", f"{kind} at lr {format_lr(p.lr)}")
            strokes = path([(at - 3.5, y.end - 9.5), (at + 3.5, y.end - 2.5)], class_="cross")
            other = path([(at - 3.5, y.end - 2.5), (at + 3.5, y.end - 9.5)], class_="cross")
            parts.append(tag("g", cross, strokes, *([other] if kind == "diverged" else [])))
    region = format_decades(o.tunability)
    heading = f"best {format_lr(o.best_lr)} · good over {region}" if o.best_lr is not None else o.note
    return figure(
        260,
        176,
        f"tuning loss of {o.name} against lr on {task}",
        marker(look, 10, 9, 3.6),
        tag("g", tag("title", o.name), label(short(o.name, 26), 19, 9, kind="head")),
        label(heading, 6, 23, kind="tick"),
        *parts,
        kind="chart small",
    )


def _lines(o: OptimizerSummary, x: Axis, y: Axis) -> list[list[tuple[float, float]]]:
    """The line through the points that worked, broken where one did not."""
    lines: list[list[tuple[float, float]]] = [[]]
    for p in o.sweep:
        if p.loss is None:
            lines.append([])
        else:
            lines[-1].append((x.at(p.lr), _within(y, p.loss)))
    return [line for line in lines if len(line) > 1]


def _within(axis: Axis, value: float) -> float:
    return min(max(axis.at(value), min(axis.start, axis.end)), max(axis.start, axis.end))


def bars(rows: Sequence[tuple[str, float | None]], looks: Looks, title: str, unit: str) -> Markup:
    """Horizontal bars with their values; None is drawn as a dash."""
    top = max((value for _, value in rows if value is not None), default=0.0) or 1.0
    height = 22.0
    parts: list[Markup] = []
    for i, (name, value) in enumerate(rows):
        middle = (i + 0.5) * height
        parts.append(marker(looks[name], 8, middle))
        parts.append(tag("g", tag("title", name), label(short(name, 17), 18, middle, kind="name")))
        length = 0.0 if value is None else 230.0 * value / top
        box = {"x": 140, "y": middle - 6, "width": max(length, 1.0), "height": 12}
        if length:
            parts.append(tag("rect", **box, class_=f"bar {looks[name].css}"))
        amount = "–" if value is None else f"{format_number(value)} {unit}"
        parts.append(label(amount, 146 + length, middle, kind="value"))
    return figure(460, height * max(1, len(rows)), title, *parts)


def final_axis(task: TaskSummary, start: float, end: float) -> Axis | None:
    """The common axis of the final losses.

    It follows the better half: what lies more than four times as far from the best as the median does is off
    the scale, as are intervals much wider than the results themselves.
    """
    means = sorted(o.loss.mean for o in task.optimizers if o.loss)
    if not means:
        return None
    cap = means[0] + 4 * (median(means) - means[0])
    inside = [o for o in task.optimizers if o.loss and (o.loss.mean <= cap or len(means) < 3)]
    losses = [v for o in inside for _, v in o.seed_losses]
    margin = 0.5 * (max(losses) - min(losses))
    low, high = min(losses) - margin, max(losses) + margin
    if min(losses) >= 0:
        low = max(low, 0.0)
    ends = [e for o in inside if o.loss for e in (o.loss.low, o.loss.high) if e is not None]
    return spanning([*losses, *(e for e in ends if low <= e <= high)], start, end, log=False)


def strip(o: OptimizerSummary, look: Look, axis: Axis) -> Markup:
    """Final loss of each seed (rings), their mean (marker) and 95 % interval (line); off scale, an arrow."""
    parts: list[Markup] = [tag("line", x1=axis.start, x2=axis.end, y1=11, y2=11, class_="grid")]
    loss = o.loss
    if loss is not None and loss.mean > axis.high:
        tip = axis.end + 4
        parts.append(path([(tip - 22, 11.0), (tip, 11.0)], class_=f"whisker {look.css}"))
        parts.append(path([(tip - 5, 7.0), (tip, 11.0), (tip - 5, 15.0)], class_=f"whisker {look.css}"))
    elif loss is not None:
        if loss.low is not None and loss.high is not None:
            ends = (_within(axis, loss.low), loss.low), (_within(axis, loss.high), loss.high)
            parts.append(path([(at, 11.0) for at, _ in ends], class_=f"whisker {look.css}"))
            for at, value in ends:
                if axis.low <= value <= axis.high:
                    parts.append(path([(at, 7.5), (at, 14.5)], class_=f"whisker {look.css}"))
        parts.append(marker(look, _within(axis, loss.mean), 11, 3.2))
        parts += [tag("circle", cx=_within(axis, v), cy=11, r=1.9, class_="seed") for _, v in o.seed_losses]
    return figure(180, 22, f"final losses of {o.name}", join(parts), kind="strip")
