"""Performance profiles over tasks: a picture and its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from steepest.race.report.charts import end_labels
from steepest.race.report.markup import Markup, tag
from steepest.race.report.svg import Axis, figure, frame, path, spanning
from steepest.race.report.tables import Looks, name_cell, table
from steepest.race.statistics import (
    Profile,
    TaskSummary,
    format_number,
    loss_costs,
    performance_profiles,
    step_costs,
)

LOSS_FACTORS = (1.0, 1.02, 1.1, 1.5, 2.0)
STEP_FACTORS = (1.0, 1.1, 1.5, 2.0, math.inf)


def profiles(leagues: Sequence[tuple[str, Sequence[TaskSummary]]], style: Looks, reference: str) -> Markup:
    """The section: final losses, and steps to the reference's loss, over one league of tasks at a time."""
    blocks: list[Markup] = []
    for words, own in leagues:
        told = f", {words}" if words else ""
        kinds = (
            (f"Final loss{told}", loss_costs(own), LOSS_FACTORS),
            (f"Steps to {reference}'s final loss{told}", step_costs(own), STEP_FACTORS),
        )
        for title, costs, factors in kinds:
            found = performance_profiles(costs)
            if found and max(profile.events for profile in found) > 1:
                blocks.append(_block(title, found, factors, style))
    if not blocks:
        return Markup()
    note = (
        "The share of tasks on which an optimizer is within a factor τ of the best on that task, by final "
        "validation loss and by steps. Left end: how often it was the best; right end: how often it got "
        "there at all. Higher is better. An optimizer counts on the tasks it was run on. Lines that "
        "coincide are drawn side by side."
    )
    return tag(
        "section",
        tag("h2", "Performance profile"),
        tag("p", note, class_="note"),
        tag("div", *blocks, class_="pair tables"),
        id="profile",
    )


def _block(title: str, found: Sequence[Profile], factors: Sequence[float], style: Looks) -> Markup:
    rows = [
        tag(
            "tr",
            name_cell(profile.optimizer, style),
            *(tag("td", f"{_count(profile, tau)} of {profile.events}", class_="num") for tau in factors),
        )
        for profile in found
    ]
    head = ["optimizer", *(_factor(tau) for tau in factors)]
    numbers = table(head, rows, numeric=range(1, len(head)))
    return tag("figure", tag("figcaption", title), _picture(title, found, style), numbers)


def _count(profile: Profile, tau: float) -> int:
    return sum(ratio <= tau for ratio in profile.ratios)


def _factor(tau: float) -> Markup:
    words = "best" if tau == 1 else "reached" if math.isinf(tau) else f"≤ {format_number(tau, 3)}×"
    return tag("span", words, class_="keep")


def _picture(title: str, found: Sequence[Profile], style: Looks) -> Markup:
    largest = max((ratio for profile in found for ratio in profile.ratios), default=1.0)
    x = _factors(max(largest, 1.1))
    y = Axis(0.0, 1.0, 232.0, 26.0)
    lines: list[Markup] = []
    ends: list[tuple[str, float, float]] = []
    for k, profile in enumerate(found):
        look, shift = style[profile.optimizer], 1.7 * (k - (len(found) - 1) / 2)
        points = [(x.at(1.0), y.at(profile.share(1.0)) + shift)]
        for ratio in profile.ratios:
            if ratio > 1.0:
                points.append((x.at(ratio), points[-1][1]))
                points.append((x.at(ratio), y.at(profile.share(ratio)) + shift))
        points.append((x.end, points[-1][1]))
        lines.append(path(points, class_=f"line {look.css}", stroke_dasharray=look.dash or None))
        ends.append((profile.optimizer, x.end, points[-1][1]))
    scale = ", log scale" if x.log else ""
    return figure(
        460,
        270,
        f"performance profile: {title}",
        frame(x, y, x_title=f"factor τ of the best{scale}", y_title="share of tasks"),
        *lines,
        *end_labels(ends, style, x, y),
    )


def _factors(largest: float) -> Axis:
    drawn = spanning([1.0, largest], 42.0, 344.0, log=largest > 3)
    return Axis(1.0, drawn.high, drawn.start, drawn.end, drawn.log)
