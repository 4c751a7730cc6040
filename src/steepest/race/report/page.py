"""The HTML report, from a summary and the records behind it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from steepest.race.report import charts, settings
from steepest.race.report.markup import Markup, join, tag
from steepest.race.report.palette import looks
from steepest.race.report.ranking import ranking
from steepest.race.report.style import style_sheet
from steepest.race.report.tables import Looks, name_cell, table
from steepest.race.report.targets import targets
from steepest.race.report.verdicts import verdicts
from steepest.race.report.words import (
    counted,
    definitions,
    headline,
    task_text,
)
from steepest.race.statistics import (
    Summary,
    TaskSummary,
    format_lr,
    format_number,
)

if TYPE_CHECKING:
    from steepest.race.records import RunRecord


def write_report(
    summary: Summary,
    path: str | os.PathLike[str],
    *,
    records: Iterable[RunRecord] = (),
    command: str | None = None,
) -> Path:
    """Write the report as one HTML file that needs nothing else, and return its path.

    Args:
        summary: what `steepest.race.statistics.summarize` returned.
        path: the file to write; its folder is made if it is missing. An old report is replaced in one move,
            so a reader never sees half a file.
        records: the records behind the summary, for the list of settings, versions and hardware.
        command: the command line that repeats the race, shown as it is.

    Raises:
        OSError: the folder cannot be made or written.
    """
    return write_atomically(path, render(summary, records=records, command=command).encode())


def write_atomically(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file beside `path` and move it there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def render(summary: Summary, *, records: Iterable[RunRecord] = (), command: str | None = None) -> str:
    """Return the report as a string of HTML."""
    records = list(records)
    style = looks(summary)
    parts = [
        tag("h1", "steepest race"),
        tag("p", headline(summary), class_="headline"),
        _extent(summary, records),
        _contents(summary),
        *(_task(task, f"task-{i}", style, summary) for i, task in enumerate(summary.tasks, 1)),
        _overall(summary, style) if len(summary.tasks) > 1 else "",
        _problems(summary, style),
        settings.section(summary, records, command),
        _reading(summary),
    ]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", "steepest race: " + (", ".join(t.name for t in summary.tasks) or "no runs yet")),
        tag("style", Markup(style_sheet())),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", tag("main", *parts)), lang="en") + "\n"


def _extent(summary: Summary, records: Sequence[RunRecord]) -> Markup:
    if not records:
        return Markup()
    seconds = sum(r.seconds for r in records)
    started = sorted(r.started for r in records if r.started)
    finals = sum(r.phase == "final" for r in records)
    tuning = len(records) - finals
    line = (
        f"{counted(len(records), 'run')}: {tuning} to tune the learning rates, {finals} to compare; "
        f"{settings.duration(seconds)} of training"
    )
    when = f"; started {started[0][:16].replace('T', ' ')} UTC" if started else ""
    return tag("p", line + when + ".", class_="meta")


def _contents(summary: Summary) -> Markup:
    links = [tag("a", t.name, href=f"#task-{i}") for i, t in enumerate(summary.tasks, 1)]
    if len(summary.tasks) > 1:
        links.append(tag("a", "Across tasks", href="#across"))
    more = (("Runs without a result", "problems"), ("Settings", "settings"), ("How to read this", "reading"))
    links += [tag("a", title, href=f"#{anchor}") for title, anchor in more]
    return tag("nav", *links, aria_label="Contents")


def _task(task: TaskSummary, anchor: str, style: Looks, summary: Summary) -> Markup:
    facts = [f"{task.steps} steps", f"{task.param_count:,} parameters" if task.param_count else ""]
    facts.append(f"final seeds {', '.join(map(str, task.seeds))}" if task.seeds else "no final runs yet")
    if task.ignored:
        facts.append(f"{counted(task.ignored, 'run')} at other settings left out")
    return tag(
        "section",
        tag("h2", task.name),
        tag("p", " · ".join(fact for fact in facts if fact), class_="meta"),
        tag("p", " ".join(task_text(task, summary.reference)), class_="lead"),
        ranking(task, style, summary),
        _curves(task, style, summary),
        _sweep(task, style, summary),
        _cost(task, style),
        targets(task, style, summary),
        verdicts(task, style, summary),
        id=anchor,
    )


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
        "is the tunability. Cross at the top: diverged; stroke: failed. Grey lines: the other optimizers."
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
    beside = ""
    if task.fwd_bwd_ms is not None:
        beside = f" (forward and backward take {format_number(task.fwd_bwd_ms)} ms)"
    time = tag("figcaption", "Optimizer step", tag("span", ", median ms" + beside, class_="sub"))
    state = tag("figcaption", "Optimizer state", tag("span", ", bytes per parameter", class_="sub"))
    return join(
        [
            tag("h3", "Cost of a step"),
            tag(
                "div",
                tag("figure", time, charts.bars(times, style, "optimizer step in ms", "ms")),
                tag("figure", state, charts.bars(memory, style, "state bytes per parameter", "B")),
                class_="pair",
            ),
        ]
    )


def _overall(summary: Summary, style: Looks) -> Markup:
    names = [t.name for t in summary.tasks]
    rows = [
        tag(
            "tr",
            name_cell(row.optimizer, style),
            tag("td", f"{row.mean_rank:.2f}", class_="num"),
            *(tag("td", _rank(row.ranks, name), class_="num") for name in names),
            tag("td", row.detected_wins, class_="num"),
            tag("td", row.detected_losses, class_="num"),
        )
        for row in summary.overall
    ]
    head = ["optimizer", "mean rank", *names, "pairs it won", "pairs it lost"]
    note = (
        "Rank on each task, and their mean; an optimizer without a result on a task counts as last there. "
        "Pairs count only where the difference is detectable. "
        "A mean rank says nothing about how far apart two are."
    )
    return tag(
        "section",
        tag("h2", "Across tasks"),
        tag("p", note, class_="note"),
        table(head, rows, numeric=range(1, len(head))),
        id="across",
    )


def _rank(ranks: Mapping[str, int | None], task: str) -> str:
    if task not in ranks:
        return "not run"
    return "no result" if ranks[task] is None else str(ranks[task])


def _problems(summary: Summary, style: Looks) -> Markup:
    rows = [
        tag(
            "tr",
            tag("td", task.name),
            name_cell(p.optimizer, style),
            tag("td", {"sweep": "tuning", "final": "final"}.get(p.phase, p.phase)),
            tag("td", format_lr(p.lr), class_="num"),
            tag("td", p.seed, class_="num"),
            tag("td", p.status),
            tag("td", p.error or "–", class_="error" if p.status == "failed" else None),
        )
        for task in summary.tasks
        for p in task.problems
    ]
    title = tag("h2", "Runs without a result")
    if not rows:
        body = [tag("p", "None: no run diverged and none failed.", class_="note")]
    else:
        note = (
            "A tuning run that diverges only marks its lr as too high. "
            "A final run that diverges puts its optimizer below all without."
        )
        head = ["task", "optimizer", "phase", "lr", "seed", "status", "reason"]
        body = [tag("p", note, class_="note"), table(head, rows, numeric=(3, 4))]
    return tag("section", title, *body, id="problems")


def _reading(summary: Summary) -> Markup:
    items = [part for term, words in definitions(summary) for part in (tag("dt", term), tag("dd", words))]
    return tag("section", tag("h2", "How to read this"), tag("dl", *items), id="reading")
