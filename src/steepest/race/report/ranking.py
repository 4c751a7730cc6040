"""The ranked table of the report."""

from __future__ import annotations

from steepest.race.report import charts
from steepest.race.report.markup import Markup, join, tag, text
from steepest.race.report.settings import plain
from steepest.race.report.svg import tick_text
from steepest.race.report.tables import Looks, name_cell, table
from steepest.race.report.words import (
    column,
    metric_name,
)
from steepest.race.statistics import (
    DEVIATION,
    NO_DIFFERENCE,
    OptimizerSummary,
    Summary,
    TaskSummary,
    format_against,
    format_decades,
    format_lr,
)


def ranking(task: TaskSummary, style: Looks, summary: Summary) -> Markup:
    """The optimizers of a task, best first."""
    keys = list(dict.fromkeys(key for o in task.optimizers for key in o.metrics if key != DEVIATION))
    keys.sort(key=lambda key: key != task.headline)
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
        tuned = plain(o.best_arguments) if o.trials else ""
        edge = {"low": "lowest lr tried", "high": "highest lr tried"}.get(o.best_at_edge or "", "")
        cells: list[object] = [
            tag("td", "–" if o.rank is None else o.rank, class_="num"),
            name_cell(o.name, style, o.note or seeds),
            tag("td", loss, class_="num") if o.loss else tag("td", "no result", class_="none keep"),
            tag("td", charts.strip(o, style[o.name], axis) if axis and o.loss else ""),
            *(tag("td", metrics[key][i], class_="num") for key in keys),
        ]
        if has_reference:
            cells.append(tag("td", _against(task, o, summary.reference), class_="keep"))
        cells += [
            tag(
                "td",
                format_lr(o.best_lr),
                *(tag("span", x, class_="sub") for x in (edge, tuned) if x),
                class_="num",
            ),
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
    words = "none detected" if words == NO_DIFFERENCE else words
    kind = {"better": "up", "worse": "down"}.get(words, "none")
    return tag("span", {"better": "▲ ", "worse": "▼ "}.get(words, "") + words, class_=kind)
