"""The sections that make up a page on one task."""

from __future__ import annotations

from collections.abc import Sequence

from steepest.race.report import charts
from steepest.race.report.claims import claims_table
from steepest.race.report.deviations import deviations
from steepest.race.report.markup import Markup, join, tag
from steepest.race.report.ranking import ranking
from steepest.race.report.tables import Looks
from steepest.race.report.targets import targets
from steepest.race.report.verdicts import verdicts
from steepest.race.report.words import counted, task_text
from steepest.race.statistics import Summary, TaskSummary, format_number


def task_section(task: TaskSummary, style: Looks, summary: Summary, description: str = "") -> Markup:
    """Everything measured on one task."""
    facts = [f"{task.steps} steps", f"{task.param_count:,} parameters" if task.param_count else ""]
    facts.append(f"final seeds {', '.join(map(str, task.seeds))}" if task.seeds else "no final runs yet")
    facts += [f"preset {task.event.preset}", f"{task.event.protocol} protocol"]
    if task.ignored:
        facts.append(f"{counted(task.ignored, 'run')} at other settings left out")
    return tag(
        "section",
        tag("h2", task.name),
        tag("p", description, class_="note") if description else "",
        tag("p", " · ".join(fact for fact in facts if fact), class_="meta"),
        tag("p", " ".join(task_text(task, summary.reference)), class_="lead"),
        ranking(task, style, summary),
        _claims(task),
        deviations(task, style),
        _curves(task, style, summary),
        _sweep(task, style, summary),
        _cost(task, style),
        targets(task, style, summary),
        verdicts(task, style, summary),
        id="task",
    )


def _claims(task: TaskSummary) -> Markup:
    return join([tag("h3", "What the paper says"), claims_table([task])]) if task.claims else Markup()


def _curves(task: TaskSummary, style: Looks, summary: Summary) -> Markup:
    figures: list[Markup] = []
    for kind in ("validation", "training"):
        drawn = charts.loss_curves(task, style, kind)
        if drawn:
            figures.append(tag("figure", tag("figcaption", f"{kind.capitalize()} loss"), drawn))
    if not figures:
        return join([tag("h3", "Loss curves"), tag("p", "No curve was recorded.", class_="note")])
    single = [o.name for o in task.optimizers if o.train and o.curves_from == "sweep"]
    note = (
        "Mean over the final seeds; the band runs from the lowest to the highest seed. "
        "Training losses are a moving average over five recorded points."
    )
    if task.target is not None:
        note += f" The dotted line is {summary.reference}'s final loss."
    if single:
        note += f" From a tuning run, for want of final runs: {', '.join(single)}."
    return join(
        [tag("h3", "Loss curves"), tag("p", note, class_="note"), tag("div", *figures, class_="pair")]
    )


def _sweep(task: TaskSummary, style: Looks, summary: Summary) -> Markup:
    pictures = charts.sweeps(task, style)
    if not pictures:
        body = tag(
            "p", "No learning rate was swept: each optimizer ran at the lr it was given.", class_="note"
        )
        return join([tag("h3", "Loss against learning rate"), body])
    seeds = ", ".join(map(str, task.sweep_seeds))
    note = (
        f"Validation loss at the end of each tuning run (seed {seeds}, {task.sweep_steps} steps). "
        f"Ring: the best lr. Shaded: lrs within {100 * summary.tolerance:.0f} % of the best loss; the width "
        "is the tunability. Cross at the top: diverged; stroke: stopped or failed. Grey lines: the "
        "other optimizers."
    )
    return join(
        [
            tag("h3", "Loss against learning rate"),
            tag("p", note, class_="note"),
            tag("div", *(tag("figure", picture) for picture in pictures), class_="many"),
        ]
    )


def _cost(task: TaskSummary, style: Looks) -> Markup:
    times = [(o.name, o.step_ms) for o in task.optimizers]
    memory = [(o.name, o.state_bytes_per_param) for o in task.optimizers]
    peaks = [
        (o.name, None if o.peak_memory_bytes is None else o.peak_memory_bytes / 2**20)
        for o in task.optimizers
    ]
    beside = ""
    if task.fwd_bwd_ms is not None:
        beside = f" (forward and backward take {format_number(task.fwd_bwd_ms)} ms)"
    pictures = [
        _bars("Optimizer step", ", median ms" + beside, times, style, "ms"),
        _bars("Optimizer state", ", bytes per parameter", memory, style, "B"),
    ]
    if any(peak is not None for _, peak in peaks):
        pictures.append(_bars("Peak memory", ", MiB, of the whole run", peaks, style, "MiB"))
    return join([tag("h3", "Cost of a step"), tag("div", *pictures, class_="pair")])


def _bars(
    title: str, detail: str, rows: Sequence[tuple[str, float | None]], style: Looks, unit: str
) -> Markup:
    caption = tag("figcaption", title, tag("span", detail, class_="sub"))
    return tag("figure", caption, charts.bars(rows, style, title.casefold() + detail, unit))
