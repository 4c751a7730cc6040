"""The HTML report, from a summary and the records behind it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from steepest.race.report import charts, settings
from steepest.race.report.markup import Markup, join, tag, text
from steepest.race.report.palette import Look, looks
from steepest.race.report.style import style_sheet
from steepest.race.report.svg import marker, path, short, tick_text
from steepest.race.report.words import (
    column,
    counted,
    definitions,
    headline,
    metric_name,
    power_text,
    task_text,
)
from steepest.race.statistics import (
    NO_DIFFERENCE,
    OptimizerSummary,
    PairResult,
    Summary,
    TaskSummary,
    format_against,
    format_decades,
    format_estimate,
    format_lr,
    format_number,
)

if TYPE_CHECKING:
    from steepest.race.records import RunRecord

Looks = Mapping[str, Look]
NOT_REACHED = tag("td", "not reached", class_="num none")
NO_RESULT = tag("td", "no result", class_="none keep")


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


def table(
    head: Sequence[object], rows: Sequence[Markup], *, kind: str | None = None, numeric: Iterable[int] = ()
) -> Markup:
    """A table that scrolls sideways where it does not fit; columns in `numeric` are set right."""
    right = set(numeric)
    titles = [
        tag("th", cell, scope="col", class_="num" if i in right else None) for i, cell in enumerate(head)
    ]
    body = tag("table", tag("thead", tag("tr", *titles)), tag("tbody", *rows), class_=kind)
    return tag("div", body, class_="scroll", tabindex="0")


def name_cell(name: str, style: Looks, note: str = "") -> Markup:
    """A row's heading: the optimizer with its line and marker."""
    sub = tag("span", note, class_="sub") if note else ""
    shown = short(name, 22)
    title = name if shown != name else None
    return tag("th", swatch(style[name]), shown, sub, scope="row", class_="stick", title=title)


def swatch(look: Look) -> Markup:
    """The line and marker of an optimizer, as in a legend."""
    line = path([(0, 6), (30, 6)], class_=f"line {look.css}", stroke_dasharray=look.dash or None)
    return tag("svg", line, marker(look, 15, 6, 3.4), viewBox="0 0 30 12", class_="mark", aria_hidden="true")


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
        _ranking(task, style, summary),
        _curves(task, style, summary),
        _sweep(task, style, summary),
        _cost(task, style),
        _targets(task, style, summary),
        _verdicts(task, style, summary),
        id=anchor,
    )


def _ranking(task: TaskSummary, style: Looks, summary: Summary) -> Markup:
    keys = list(dict.fromkeys(key for o in task.optimizers for key in o.metrics))
    axis = charts.final_axis(task, 8.0, 172.0)
    has_reference = any(o.name == summary.reference for o in task.optimizers)
    scale: object = ""
    if axis is not None:
        ends = f"{tick_text(float(f'{axis.low:.2g}'))} to {tick_text(float(f'{axis.high:.2g}'))}"
        scale = join(
            ["each seed, mean, interval", tag("span", ends + (", log" if axis.log else ""), class_="sub")]
        )
    head: list[object] = ["#", "optimizer", "validation loss", scale, *map(metric_name, keys)]
    head += [f"against {summary.reference}"] if has_reference else []
    head += ["best lr", "good lr range", "runs"]
    losses = column([o.loss for o in task.optimizers])
    metrics = {
        key: column([o.metrics.get(key) for o in task.optimizers], percent=key.endswith("accuracy"))
        for key in keys
    }
    rows: list[Markup] = []
    for i, (o, loss) in enumerate(zip(task.optimizers, losses, strict=True)):
        short_of = o.loss is not None and o.loss.n < len(task.seeds)
        seeds = f"{len(o.seed_losses)} of {len(task.seeds)} seeds" if short_of else ""
        edge = {"low": "lowest lr tried", "high": "highest lr tried"}.get(o.best_at_edge or "", "")
        cells: list[object] = [
            tag("td", "–" if o.rank is None else o.rank, class_="num"),
            name_cell(o.name, style, o.note or seeds),
            tag("td", loss, class_="num") if o.loss else NO_RESULT,
            tag("td", charts.strip(o, style[o.name], axis) if axis and o.loss else ""),
            *(tag("td", metrics[key][i], class_="num") for key in keys),
        ]
        if has_reference:
            cells.append(tag("td", _against(task, o, summary.reference)))
        cells += [
            tag("td", format_lr(o.best_lr), tag("span", edge, class_="sub") if edge else "", class_="num"),
            tag("td", format_decades(o.tunability), class_="num"),
            tag("td", o.runs, *(tag("span", count, class_="sub") for count in _lost(o)), class_="num"),
        ]
        rows.append(tag("tr", *cells, class_="best" if o.rank == 1 else None))
    numeric = {0, 2, *range(4, 4 + len(keys)), *range(len(head) - 3, len(head))}
    return join([tag("h3", "Ranking"), table(head, rows, numeric=numeric)])


def _lost(o: OptimizerSummary) -> list[str]:
    return [f"{n} {word}" for n, word in ((o.diverged, "diverged"), (o.failed, "failed")) if n]


def _against(task: TaskSummary, o: OptimizerSummary, reference: str) -> Markup:
    words = format_against(task, o, reference)
    if words == "–":
        return text("–")
    kind = {"better": "up", "worse": "down"}.get(words, "none")
    return tag("span", {"better": "▲ ", "worse": "▼ "}.get(words, "") + words, class_=kind)


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


def _targets(task: TaskSummary, style: Looks, summary: Summary) -> Markup:
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
                NOT_REACHED if reached is None else tag("td", f"{reached:.0f}", class_="num"),
                tag("td", _percent(o.budget), class_="num"),
                tag("td", format_number(o.seconds_to_target), class_="num"),
                tag("td", _percent(o.time_budget), class_="num"),
                tag("td", back, class_="num"),
            ]
        rows.append(tag("tr", name_cell(o.name, style), *cells))
    note = (
        f"The target is {format_number(task.target, 4)}, the mean final validation loss of {ref} at its best "
        "lr. The first crossing of the mean validation curve counts. "
        "Seconds are training time: forward, backward and step."
    )
    return join([title, tag("p", note, class_="note"), table(head, rows, numeric=range(1, 6))])


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _verdicts(task: TaskSummary, style: Looks, summary: Summary) -> Markup:
    title = tag("h3", "Who is better than whom")
    power = tag("p", power_text(task, summary.alpha), class_="note")
    if not task.pairs:
        return join([title, power])
    names = [o.name for o in task.optimizers]
    rows: list[Markup] = []
    for a in names:
        cells = [tag("td", class_="self") if a == b else _verdict_cell(task.pair(a, b)) for b in names]
        rows.append(tag("tr", name_cell(a, style), *cells))
    matrix = table(["row against column", *names], rows, kind="matrix")
    return join([title, power, matrix, _pair_table(task)])


def _verdict_cell(pair: PairResult) -> Markup:
    if pair.verdict == NO_DIFFERENCE:
        words = tag("span", "not tested" if pair.p is None else "none detected", class_="none")
    elif pair.better == pair.a:
        words = tag("span", "▲ better", class_="up")
    else:
        words = tag("span", "▼ worse", class_="down")
    p = "by divergence" if pair.p_holm is None and pair.better else _p(pair.p_holm)
    return tag("td", words, tag("span", p, class_="sub") if p != "–" else "", title=pair.reason)


def _p(p: float | None) -> str:
    if p is None:
        return "–"
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}" if p < 0.1 else f"p {p:.2f}"


def _why(pair: PairResult) -> str:
    """The reason of a verdict, where the corrected p does not tell it."""
    by_p = pair.p_holm is not None and (pair.better is not None or "diverged" not in pair.reason)
    return "" if by_p else pair.reason


def _pair_table(task: TaskSummary) -> Markup:
    head = ["A", "B", "seeds", "loss(A) − loss(B)", "p", "p after Holm", "smallest callable", "verdict"]
    rows = [
        tag(
            "tr",
            tag("th", pair.a, scope="row"),
            tag("th", pair.b, scope="row"),
            tag("td", len(pair.seeds), class_="num"),
            tag("td", format_estimate(pair.difference), class_="num"),
            tag("td", _p(pair.p).removeprefix("p "), class_="num"),
            tag("td", _p(pair.p_holm).removeprefix("p "), class_="num"),
            tag("td", format_number(pair.detectable, 2), class_="num"),
            tag("td", pair.verdict, tag("span", _why(pair), class_="sub"), class_="keep"),
        )
        for pair in task.pairs
    ]
    body = table(head, rows, numeric=range(2, 7))
    return tag("details", tag("summary", "Every pair in numbers"), body)


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
            tag("td", p.error or "–", class_="error" if p.error else None),
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
        head = ["task", "optimizer", "phase", "lr", "seed", "status", "error"]
        body = [tag("p", note, class_="note"), table(head, rows, numeric=(3, 4))]
    return tag("section", title, *body, id="problems")


def _reading(summary: Summary) -> Markup:
    items = [part for term, words in definitions(summary) for part in (tag("dt", term), tag("dd", words))]
    return tag("section", tag("h2", "How to read this"), tag("dl", *items), id="reading")
