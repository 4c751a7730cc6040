"""Tables of the report, and how an optimizer is named in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from steepest.race.report.markup import Markup, tag
from steepest.race.report.palette import Look
from steepest.race.report.svg import marker, path, short

Looks = Mapping[str, Look]


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
