"""The section that says everything needed to repeat the race."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steepest.race.report.markup import Markup, tag
from steepest.race.statistics import Event, OptimizerSummary, Summary, TaskSummary, format_lr

if TYPE_CHECKING:
    from steepest.race.records import RunRecord


ELSEWHERE = ("claims", "headline", "description")  # settings that the page tells in other places


@dataclass(frozen=True)
class Origin:
    """A command line, and the keys of the runs that it asked for."""

    command: str
    keys: frozenset[str]


def section(
    summary: Summary, tasks: Sequence[TaskSummary], records: Sequence[RunRecord], origins: Sequence[Origin]
) -> Markup:
    """Return the settings section on `tasks`: commands, settings of each task, environment."""
    parts: list[Markup] = [tag("h2", "Settings")]
    keys = {record.key for record in records}
    commands = list(dict.fromkeys(o.command for o in origins if not keys or keys & o.keys))
    if commands:
        what = "To repeat these runs:" if len(commands) < 2 else "To repeat these runs, one after the other:"
        parts += [tag("p", what, class_="note"), tag("pre", "\n".join(commands))]
    for task in tasks:
        own = [r for r in records if Event.of(r) == task.event]
        parts += [tag("h3", task.name), tag("dl", *_pairs(_task_facts(task, own)))]
        parts.append(_grid_table(task, own, summary.reference))
    environment = _pairs(_environment(records))
    parts += [tag("h3", "Environment")]
    parts.append(tag("dl", *environment) if environment else tag("p", "Not recorded.", class_="note"))
    return tag("section", *parts, id="settings")


def duration(seconds: float) -> str:
    """Format a time span: 42 s, 2 min 5 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if whole else f"{seconds:.1f} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def aux_policy(records: Sequence[RunRecord], tuned: float | None = None, reference: str = "") -> str:
    """Say how the auxiliary lr was chosen, from what the records show; `tuned` is the reference's best lr."""
    known = sorted({(r.lr, r.aux_lr) for r in records if r.aux_lr is not None})
    if not known:
        return "no auxiliary rule"
    values = {aux for _, aux in known}
    if len(values) == 1:
        same = f", the best lr of {reference}" if values == {tuned} else ""
        return f"fixed at {format_lr(known[0][1])}{same}"
    ratios = {f"{aux / lr:.3g}" for lr, aux in known if lr and aux is not None}
    if len(ratios) == 1:
        return f"{ratios.pop()} × lr"
    return "tuned with lr: " + ", ".join(f"{format_lr(aux)} at {format_lr(lr)}" for lr, aux in known)


def _pairs(facts: Mapping[str, str]) -> list[Markup]:
    return [part for term, value in facts.items() if value for part in (tag("dt", term), tag("dd", value))]


def _task_facts(task: TaskSummary, records: Sequence[RunRecord]) -> dict[str, str]:
    facts = {
        "Task version": task.version,
        "Preset": task.event.preset,
        "Protocol": task.event.protocol,
        "Engine": plain(task.event.options),
        "Steps": f"{task.steps} in final runs, {task.sweep_steps or 'none'} in tuning runs",
        "Final seeds": ", ".join(map(str, task.seeds)),
        "Tuning seed" if len(task.sweep_seeds) < 2 else "Tuning seeds": ", ".join(map(str, task.sweep_seeds)),
    }
    values: dict[str, list[str]] = {}
    for record in records:
        for key, value in record.settings.items():
            if key in ELSEWHERE:
                continue
            shown = plain(value)
            if shown not in values.setdefault(key, []):
                values[key].append(shown)
    # What differs from run to run is told by the table below; it is not a setting of the task.
    return facts | {key.replace("_", " "): shown[0] for key, shown in values.items() if len(shown) == 1}


def _grid_table(task: TaskSummary, records: Sequence[RunRecord], reference: str) -> Markup:
    rows: list[Markup] = []
    tuned = next((o.best_lr for o in task.optimizers if o.name == reference), None)
    for o in task.optimizers:
        own = [r for r in records if r.optimizer == o.name]
        kwargs = plain(o.best_arguments) or "defaults"
        if o.trials:
            kwargs += f" (the best of {o.trials} trials and the lr search)"
        rows.append(
            tag(
                "tr",
                tag("th", o.name, scope="row", class_="stick"),
                tag("td", o.target, class_="error"),
                tag("td", _grid(o)),
                tag("td", format_lr(o.best_lr), class_="num"),
                tag("td", aux_policy(own, tuned, reference)),
                tag("td", kwargs),
            )
        )
    titles = ("optimizer", "class", "lr tried", "best lr", "auxiliary lr", "other arguments")
    head = [tag("th", t, scope="col", class_="num" if t == "best lr" else None) for t in titles]
    body = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows))
    return tag("div", body, class_="scroll", tabindex="0")


def _grid(o: OptimizerSummary) -> str:
    return ", ".join(format_lr(point.lr) for point in o.sweep) or "not swept"


def _environment(records: Sequence[RunRecord]) -> dict[str, str]:
    facts: dict[str, list[str]] = {}
    for record in records:
        for source in (record.versions, record.hardware):
            for key, value in source.items():
                shown = plain(value)
                if shown not in facts.setdefault(key.replace("_", " "), []):
                    facts[key.replace("_", " ")].append(shown)
    return {key: " | ".join(values) for key, values in facts.items()}


def plain(value: object) -> str:
    """Write a setting as a person would: strings bare, mappings as key = value, the rest as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {plain(item)}" for key, item in value.items())
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return repr(value)
