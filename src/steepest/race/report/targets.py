"""The part of the report on steps and seconds to the reference's final loss."""

from __future__ import annotations

from steepest.race.report.markup import Markup, join, tag
from steepest.race.report.tables import Looks, name_cell, table
from steepest.race.statistics import (
    Summary,
    TaskSummary,
    format_number,
)


def targets(task: TaskSummary, style: Looks, summary: Summary) -> Markup:
    """How soon each optimizer is where the reference ends."""
    ref = summary.reference
    title = tag("h3", f"Steps and seconds to {ref}'s final loss")
    if task.target is None:
        return join(
            [title, tag("p", f"No target: {ref} has no finished final run on this task.", class_="note")]
        )
    head = [
        "optimizer",
        "steps",
        f"share of {ref}'s steps",
        "seconds",
        f"share of {ref}'s time",
        f"{ref} reaches this one's loss",
    ]
    rows: list[Markup] = []
    for o in task.optimizers:
        if o.loss is None:
            cells = [tag("td", "no result", colspan=5, class_="none")]
        else:
            reached = o.steps_to_target
            back = "–" if o.name == ref else "not within its steps"
            if o.name != ref and o.reference_steps is not None and task.steps:
                back = f"after {o.reference_steps:.0f} steps ({100 * o.reference_steps / task.steps:.0f} %)"
            cells = [
                tag("td", "not reached", class_="num none")
                if reached is None
                else tag("td", f"{reached:.0f}", class_="num"),
                tag("td", percent(o.budget), class_="num"),
                tag("td", format_number(o.seconds_to_target), class_="num"),
                tag("td", percent(o.time_budget), class_="num"),
                tag("td", back, class_="num"),
            ]
        rows.append(tag("tr", name_cell(o.name, style), *cells))
    note = (
        f"The target is {format_number(task.target, 4)}, the mean final validation loss of {ref} at its best "
        "lr. The first crossing of the mean validation curve counts. "
        "Seconds are training time: forward, backward and step."
    )
    return join([title, tag("p", note, class_="note"), table(head, rows, numeric=range(1, 6))])


def percent(share: float | None) -> str:
    """Write a share in per cent, without decimals."""
    return "–" if share is None else f"{100 * share:.0f} %"
