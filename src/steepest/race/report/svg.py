"""The pieces of a figure: axes, ticks, markers, lines and labels that keep out of each other's way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from steepest.race.report.markup import Markup, join, tag
from steepest.race.report.palette import Look
from steepest.race.statistics import format_lr

_STEPS = (0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic map from values [low, high] to positions [start, end]."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """Return the position of `value`, kept within one length outside of the axis."""
        low, high = self.low, self.high
        if self.log:
            low, high = math.log10(low), math.log10(high)
            value = math.log10(value) if value > 0 else -math.inf
        share = (value - low) / (high - low)
        return self.start + min(2.0, max(-1.0, share)) * (self.end - self.start)

    def ticks(self, wanted: int = 5) -> list[float]:
        """Return round values on the axis, about `wanted` of them."""
        found: list[float] = []
        if not self.log:
            raw = (self.high - self.low) / wanted
            power = 10.0 ** math.floor(math.log10(raw))
            place = next(i for i, k in enumerate(_STEPS) if k * power >= raw * 0.999)
            for k in (_STEPS[place], _STEPS[place - 1]):
                step = k * power
                first = math.ceil(self.low / step - 1e-9)
                found = [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]
                if len(found) >= 3:
                    break
            return found
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
            found = [d * 10.0**p for p in powers for d in digits]
            found = [v for v in found if self.low * 0.999 <= v <= self.high * 1.001]
            if len(found) >= min(3, wanted):
                return found[:: math.ceil(len(found) / (wanted + 1))] if digits == (1,) else found
        return found or [self.low, self.high]


def spanning(values: Sequence[float], start: float, end: float, *, log: bool | None = None) -> Axis:
    """Return an axis over `values` with a little room; logarithmic if asked for or if they span a lot."""
    finite = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if log is None:
        log = low > 0 and high / low > 6
    if log and low > 0:
        room = max(0.03 * math.log10(high / low), 0.02)
        return Axis(low / 10**room, high * 10**room, start, end, True)
    room = 0.04 * (high - low) or 0.05 * abs(high) or 0.5
    bottom = low - room
    return Axis(0.0 if low >= 0 > bottom else bottom, high + room, start, end)


def tick_text(value: float) -> str:
    """Format a tick: 2000 as 2k, 0.05 as 0.05, 1e-05 as 1e-5."""
    if 1000 <= abs(value) < 1e6 and value % 100 == 0:
        return f"{value / 1000:g}k"
    return format_lr(value)


def marker(look: Look, x: float, y: float, size: float = 3.2, *, hollow: bool = False) -> Markup:
    """Draw the marker of `look` at (x, y)."""
    kind = "m hollow" if hollow else "m"
    shapes = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "triangle": [(0, -1.2), (1.1, 0.85), (-1.1, 0.85)],
        "down": [(0, 1.2), (1.1, -0.85), (-1.1, -0.85)],
        "diamond": [(0, -1.3), (1.1, 0), (0, 1.3), (-1.1, 0)],
        "hexagon": [(-0.55, -1), (0.55, -1), (1.1, 0), (0.55, 1), (-0.55, 1), (-1.1, 0)],
        "bar": [(-0.5, -1.3), (0.5, -1.3), (0.5, 1.3), (-0.5, 1.3)],
        "plus": [
            (-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4),
            (0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4),
        ],
    }  # fmt: skip
    if look.marker == "circle":
        return tag("circle", cx=float(x), cy=float(y), r=float(size), class_=f"{kind} {look.css}")
    points = " ".join(f"{x + size * dx:.1f},{y + size * dy:.1f}" for dx, dy in shapes[look.marker])
    return tag("polygon", points=points, class_=f"{kind} {look.css}")


def path(points: Sequence[tuple[float, float]], **attributes: object) -> Markup:
    """Draw a line through `points`."""
    data = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return tag("path", d=data, **attributes)


def label(content: str, x: float, y: float, *, anchor: str = "start", kind: str = "") -> Markup:
    """Write text whose middle is at height `y`."""
    return tag("text", content, x=float(x), y=float(y), dy="0.35em", text_anchor=anchor, class_=kind or None)


def short(name: str, length: int) -> str:
    """Cut a long name in its middle; the beginning and the end tell more."""
    if len(name) <= length:
        return name
    head = (length - 1) // 3
    return name[:head] + "…" + name[len(name) - (length - 1 - head) :]


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move label positions apart until neighbours are `gap` apart, within [low, high] if they fit."""
    order = sorted(range(len(wanted)), key=wanted.__getitem__)
    clusters: list[tuple[float, int]] = []  # centre and count of labels that have been pushed together
    for i in order:
        clusters.append((wanted[i], 1))
        while len(clusters) > 1:
            (upper, n), (lower, m) = clusters[-2:]
            if lower - upper >= gap * (n + m) / 2:
                break
            clusters[-2:] = [((upper * n + lower * m) / (n + m), n + m)]
    placed = [centre + gap * (k - (count - 1) / 2) for centre, count in clusters for k in range(count)]
    for k in range(len(placed)):
        placed[k] = max(placed[k], low + k * gap)
    for k in range(len(placed)):
        placed[-1 - k] = min(placed[-1 - k], high - k * gap)
    result = [0.0] * len(wanted)
    for place, i in zip(placed, order, strict=True):
        result[i] = place
    return result


def frame(x: Axis, y: Axis, *, x_title: str, y_title: str, x_ticks: int = 5, y_ticks: int = 5) -> Markup:
    """Draw grid lines, tick labels and titles; `y.start` is the bottom."""
    parts: list[Markup] = []
    for value in y.ticks(y_ticks):
        at = y.at(value)
        parts.append(tag("line", x1=x.start, x2=x.end, y1=at, y2=at, class_="grid"))
        parts.append(label(tick_text(value), x.start - 6, at, anchor="end", kind="tick"))
    parts.append(tag("line", x1=x.start, x2=x.end, y1=y.start, y2=y.start, class_="base"))
    for value in x.ticks(x_ticks):
        at = x.at(value)
        parts.append(tag("line", x1=at, x2=at, y1=y.start, y2=y.start + 4, class_="base"))
        parts.append(label(tick_text(value), at, y.start + 12, anchor="middle", kind="tick"))
    if x_title:
        parts.append(label(x_title, (x.start + x.end) / 2, y.start + 28, anchor="middle", kind="axis"))
    if y_title:
        parts.append(label(y_title, x.start - 36, y.end - 13, kind="axis"))
    return join(parts)


def figure(width: float, height: float, title: str, *parts: object, kind: str = "chart") -> Markup:
    """Wrap parts in a scalable figure with an accessible name."""
    return tag("svg", *parts, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=title, class_=kind)
