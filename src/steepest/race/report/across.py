"""What the index page says across tasks: results, standings, budgets, and the protocols side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steepest.race.report.markup import Markup, join, tag
from steepest.race.report.tables import Looks, name_cell, table
from steepest.race.report.targets import percent
from steepest.race.report.words import counted, leaders, listed
from steepest.race.statistics import (
    OptimizerSummary,
    TaskSummary,
    format_against,
    format_estimate,
    format_lr,
    format_number,
    standings,
)


def leagues(tasks: Sequence[TaskSummary]) -> list[tuple[str, list[TaskSummary]]]:
    """Tasks of one preset and protocol, which may be counted together; the words are empty if that is all."""
    found: dict[tuple[str, str], list[TaskSummary]] = {}
    for task in tasks:
        found.setdefault((task.event.preset, task.event.protocol), []).append(task)
    if len(found) == 1:
        return [("", list(tasks))]
    return [(f"{preset} preset, {protocol} protocol", own) for (preset, protocol), own in found.items()]


def results(tasks: Sequence[TaskSummary], links: Mapping[str, str], reference: str) -> Markup:
    """One row per task: who was best, and by how much it is so."""
    rows: list[Markup] = []
    for task in tasks:
        first = leaders(task)
        ref = next((o for o in task.optimizers if o.name == reference), None)
        best = first[0] if first else None
        beaten = [] if best is None else [p for p in task.pairs if p.better == best.name]
        sure = f"detectably better than {len(beaten)} of {counted(len(task.optimizers) - 1, 'other')}"
        cells = [
            tag("th", tag("a", task.name, href=links[task.name]), scope="row", class_="stick"),
            tag("td", listed([o.name for o in first]) or "no result", tag("span", sure, class_="sub"))
            if best
            else tag("td", "no result", class_="none"),
            tag("td", format_estimate(best.loss) if best else "–", class_="num"),
            tag("td", format_estimate(ref.loss) if ref else "–", class_="num"),
            tag("td", len(task.seeds), class_="num"),
            tag("td", task.steps, class_="num"),
            tag("td", sum(o.runs for o in task.optimizers), class_="num"),
            tag("td", len(task.problems), class_="num"),
        ]
        rows.append(tag("tr", *cells))
    head = [
        "task",
        "lowest loss",
        "its loss",
        f"{reference}’s loss",
        "seeds",
        "steps",
        "runs",
        "without result",
    ]
    return tag(
        "section",
        tag("h2", "Tasks"),
        tag("p", "Validation loss, mean over the final seeds ± half the 95 % interval.", class_="note"),
        table(head, rows, numeric=range(2, 8)),
        id="tasks",
    )


def standing(tasks: Sequence[TaskSummary], style: Looks) -> Markup:
    """Ranks by task and their mean, for every league of more than one task."""
    parts: list[Markup] = []
    for words, own in leagues(tasks):
        if len(own) < 2:
            continue
        names = {task.name: task.event.task for task in own}
        if len(set(names.values())) < len(names):
            names = {name: name for name in names}
        rows = [
            tag(
                "tr",
                name_cell(row.optimizer, style),
                tag("td", f"{row.mean_rank:.2f}", class_="num"),
                *(tag("td", _rank(row.ranks, name), class_="num") for name in names),
                tag("td", row.detected_wins, class_="num"),
                tag("td", row.detected_losses, class_="num"),
            )
            for row in standings(own)
        ]
        head = ["optimizer", "mean rank", *names.values(), "pairs it won", "pairs it lost"]
        parts += [tag("h3", words) if words else Markup(), table(head, rows, numeric=range(1, len(head)))]
    if not parts:
        return Markup()
    note = (
        "Rank on each task, and their mean; an optimizer without a result on a task counts as last there, "
        "one that was not run is not counted. Pairs count only where the difference is detectable. "
        "A mean rank says nothing about how far apart two are."
    )
    return tag("section", tag("h2", "Across tasks"), tag("p", note, class_="note"), *parts, id="across")


def budgets(tasks: Sequence[TaskSummary], style: Looks, reference: str) -> Markup:
    """How much of the reference's steps and time each optimizer needs to come to the reference's end."""
    known = [task for task in tasks if task.target is not None]
    if not known:
        return Markup()
    names = dict.fromkeys(o.name for task in known for o in task.optimizers)
    rows = [
        tag("tr", name_cell(name, style), *(_budget(_find(task, name)) for task in known)) for name in names
    ]
    note = (
        f"Steps to the final loss of the tuned {reference}, as a share of its whole run; below it, seconds "
        f"as a share of its time. 60 % means the same loss for 60 % of the budget. {reference} itself may "
        "cross its final loss early, where its curve is noisy."
    )
    return tag(
        "section",
        tag("h2", f"Equivalent {reference} budget"),
        tag("p", note, class_="note"),
        table(["optimizer", *(task.name for task in known)], rows, numeric=range(1, len(known) + 1)),
        id="budget",
    )


def protocols(tasks: Sequence[TaskSummary], style: Looks, reference: str) -> Markup:
    """Where a task was run under several protocols: what each optimizer came to under each."""
    parts: list[Markup] = []
    for task in dict.fromkeys((t.event.task, t.event.preset) for t in tasks):
        same = [t for t in tasks if (t.event.task, t.event.preset) == task]
        if len({t.event.protocol for t in same}) > 1:
            parts += [tag("h3", task[0]), _side_by_side(same, style, reference)]
    if not parts:
        return Markup()
    note = (
        "The paper protocol repeats the source's settings: its steps, batch, seeds, and who is tuned and who "
        "is not. The fair one gives every optimizer the same search. Losses compare across protocols only "
        "where steps and batch agree."
    )
    return tag(
        "section",
        tag("h2", "Protocols side by side"),
        tag("p", note, class_="note"),
        *parts,
        id="protocols",
    )


def _side_by_side(same: Sequence[TaskSummary], style: Looks, reference: str) -> Markup:
    head: list[object] = ["optimizer"]
    for task in same:
        steps = tag("span", f"{task.steps} steps, {counted(len(task.seeds), 'seed')}", class_="sub")
        head += [f"lr, {task.event.protocol}", join([f"loss, {task.event.protocol}", steps])]
        head.append(f"against {reference}, {task.event.protocol}")
    rows: list[Markup] = []
    for name in dict.fromkeys(o.name for task in same for o in task.optimizers):
        cells: list[Markup] = []
        for task in same:
            o = _find(task, name)
            if o is None:
                cells.append(tag("td", "not run", colspan=3, class_="none"))
                continue
            tried = "fixed" if len(o.sweep) < 2 else f"of {len(o.sweep)}"
            cells += [
                tag("td", format_lr(o.best_lr), tag("span", tried, class_="sub"), class_="num"),
                tag("td", format_estimate(o.loss) if o.loss else "no result", class_="num"),
                tag("td", format_against(task, o, reference), class_="keep"),
            ]
        rows.append(tag("tr", name_cell(name, style), *cells))
    numeric = [i for k in range(len(same)) for i in (1 + 3 * k, 2 + 3 * k)]
    return table(head, rows, numeric=numeric)


def _find(task: TaskSummary, name: str) -> OptimizerSummary | None:
    return next((o for o in task.optimizers if o.name == name), None)


def _budget(o: OptimizerSummary | None) -> Markup:
    if o is None or o.loss is None:
        return tag("td", "not run" if o is None else "no result", class_="num none")
    if o.steps_to_target is None:
        return tag("td", "not reached", class_="num none")
    time = "" if o.time_budget is None else tag("span", f"time {percent(o.time_budget)}", class_="sub")
    steps = percent(o.budget) if o.budget is not None else format_number(o.steps_to_target)
    return tag("td", steps, time, class_="num")


def _rank(ranks: Mapping[str, int | None], task: str) -> str:
    if task not in ranks:
        return "not run"
    return "no result" if ranks[task] is None else str(ranks[task])
