"""The pages of a report, from a summary and the records behind it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from steepest.race.report import across, deviations, settings
from steepest.race.report.claims import claims_table, tally
from steepest.race.report.document import document
from steepest.race.report.markup import Markup, tag
from steepest.race.report.palette import looks
from steepest.race.report.profiles import profiles
from steepest.race.report.sections import task_section
from steepest.race.report.settings import Origin
from steepest.race.report.tables import Looks, name_cell, table
from steepest.race.report.words import counted, definitions, headline
from steepest.race.statistics import Event, Summary, TaskSummary, format_lr

if TYPE_CHECKING:
    from steepest.race.records import RunRecord

INDEX = "index.html"


def render_pages(
    summary: Summary,
    *,
    records: Iterable[RunRecord] = (),
    origins: Sequence[Origin] = (),
    files: Sequence[str] = (),
) -> dict[str, str]:
    """Return the report's pages by file name, ``"index.html"`` first.

    One task is told on the index itself; with several the index holds what spans them, and every task has a
    page of its own.

    Args:
        summary: what `steepest.race.statistics.summarize` returned.
        records: the records behind it.
        origins: the commands that made them.
        files: names of files beside the pages, to be linked to.
    """
    known = list(records)
    style = looks(summary)
    if len(summary.tasks) < 2:
        return {INDEX: _single(summary, known, origins, style, files)}
    links = page_names(summary)
    pages = {INDEX: _index(summary, known, origins, style, links, files)}
    for task in summary.tasks:
        pages[links[task.name]] = _task_page(task, summary, known, origins, style, files)
    return pages


def page_names(summary: Summary) -> dict[str, str]:
    """Return the file of every task's page, by the task's name in the summary."""
    names: dict[str, str] = {}
    for task in summary.tasks:
        stem = re.sub(r"[^a-z0-9]+", "-", task.name.casefold()).strip("-") or "task"
        taken = {INDEX, *names.values()}
        name, k = f"{stem}.html", 1
        while name in taken:
            k += 1
            name = f"{stem}-{k}.html"
        names[task.name] = name
    return names


def _single(
    summary: Summary, records: list[RunRecord], origins: Sequence[Origin], style: Looks, files: Sequence[str]
) -> str:
    tasks = summary.tasks
    anchors = [
        ("Runs without a result", "problems"),
        ("Settings", "settings"),
        ("How to read this", "reading"),
    ]
    return document(
        "steepest race: " + (tasks[0].name if tasks else "no runs yet"),
        tag("h1", "steepest race"),
        tag("p", headline(summary), class_="headline"),
        _extent(records),
        _contents([(task.name, "#task") for task in tasks] + [(title, f"#{at}") for title, at in anchors]),
        _files(files),
        *(task_section(task, style, summary, _description(task, records)) for task in tasks),
        _problems(tasks, style),
        settings.section(summary, tasks, records, origins),
        _reading(summary),
    )


def _index(
    summary: Summary,
    records: list[RunRecord],
    origins: Sequence[Origin],
    style: Looks,
    links: Mapping[str, str],
    files: Sequence[str],
) -> str:
    tasks, ref = summary.tasks, summary.reference
    sections = [
        ("Tasks", "tasks", across.results(tasks, links, ref)),
        ("Claims", "claims", _claims(tasks, links)),
        ("Across tasks", "across", across.standing(tasks, style)),
        ("Performance profile", "profile", profiles(across.leagues(tasks), style, ref)),
        (f"Equivalent {ref} budget", "budget", across.budgets(tasks, style, ref)),
        ("Protocols", "protocols", across.protocols(tasks, style, ref)),
        ("Invariance", "invariance", deviations.across(tasks, style)),
        ("Runs without a result", "problems", _problems(tasks, style)),
        ("Settings", "settings", settings.section(summary, (), records, origins)),
        ("How to read this", "reading", _reading(summary)),
    ]
    return document(
        f"steepest race: {counted(len(tasks), 'task')}",
        tag("h1", "steepest race"),
        tag("p", headline(summary), _verdicts_told(tasks), class_="headline"),
        _extent(records),
        _contents([(title, f"#{at}") for title, at, content in sections if content]),
        _files([name for name in files if not name.endswith(".png")]),
        *(content for _, _, content in sections),
    )


def _task_page(
    task: TaskSummary,
    summary: Summary,
    records: list[RunRecord],
    origins: Sequence[Origin],
    style: Looks,
    files: Sequence[str],
) -> str:
    own = [r for r in records if Event.of(r) == task.event]
    sections = (("Runs without a result", "problems"), ("Settings", "settings"))
    return document(
        f"steepest race: {task.name}",
        tag("h1", tag("a", "steepest race", href=INDEX), " · one task"),
        tag("p", headline(summary, [task]), class_="headline"),
        _extent(own),
        _contents(
            [
                ("All tasks", INDEX),
                *((title, f"#{at}") for title, at in sections),
                ("How to read this", f"{INDEX}#reading"),
            ]
        ),
        _files([name for name in files if name == picture_name(summary, task)]),
        task_section(task, style, summary, _description(task, own)),
        _problems([task], style),
        settings.section(summary, [task], own, origins),
    )


def picture_name(summary: Summary, task: TaskSummary) -> str:
    """Return the file of a task's picture: that of its page, or ``index.png`` for a lone task."""
    page = INDEX if len(summary.tasks) < 2 else page_names(summary)[task.name]
    return page.removesuffix(".html") + ".png"


def _claims(tasks: Sequence[TaskSummary], links: Mapping[str, str]) -> Markup:
    if not any(task.claims for task in tasks):
        return Markup()
    return tag("section", tag("h2", "Claims"), claims_table(tasks, links), id="claims")


def _verdicts_told(tasks: Sequence[TaskSummary]) -> str:
    count = tally(tasks)
    if not sum(count.values()):
        return ""
    holds, refuted, undecided = count.values()
    return (
        f" Of {counted(sum(count.values()), 'claim')} of papers put to the test, {holds} held, {refuted} did "
        f"not, and {undecided} could not be decided."
    )


def _description(task: TaskSummary, records: Sequence[RunRecord]) -> str:
    own = (r.settings.get("description") for r in records if Event.of(r) == task.event)
    return next((str(words) for words in own if words), "")


def _extent(records: Sequence[RunRecord]) -> Markup:
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


def _contents(links: Sequence[tuple[str, str]]) -> Markup:
    return tag("nav", *(tag("a", title, href=target) for title, target in links), aria_label="Contents")


def _files(files: Sequence[str]) -> Markup:
    if not files:
        return Markup()
    links: list[object] = ["Files beside this page: "]
    for i, name in enumerate(files):
        links += [", " if i else "", tag("a", name, href=name)]
    return tag("p", *links, class_="meta files")


def _problems(tasks: Sequence[TaskSummary], style: Looks) -> Markup:
    rows = [
        tag(
            "tr",
            tag("td", task.name),
            name_cell(p.optimizer, style),
            tag("td", {"sweep": "tuning", "tune": "second stage"}.get(p.phase, p.phase)),
            tag("td", format_lr(p.lr), class_="num"),
            tag("td", p.seed, class_="num"),
            tag("td", p.status),
            tag("td", p.error or "–", class_="error" if p.status == "failed" else None),
        )
        for task in tasks
        for p in task.problems
    ]
    title = tag("h2", "Runs without a result")
    if not rows:
        body = [tag("p", "None: no run diverged and none failed.", class_="note")]
    else:
        note = (
            "A tuning run that diverges, or was stopped because it had not learned anything by half of its "
            "steps, only marks its lr as unsuitable. "
            "A final run that diverges puts its optimizer below all without."
        )
        head = ["task", "optimizer", "phase", "lr", "seed", "status", "reason"]
        body = [tag("p", note, class_="note"), table(head, rows, numeric=(3, 4))]
    return tag("section", title, *body, id="problems")


def _reading(summary: Summary) -> Markup:
    items = [part for term, words in definitions(summary) for part in (tag("dt", term), tag("dd", words))]
    return tag("section", tag("h2", "How to read this"), tag("dl", *items), id="reading")
