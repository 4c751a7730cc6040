"""HTML and SVG from function calls; every string is escaped unless it is already `Markup`."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


class Markup(str):
    """Text that is markup already and is not escaped again."""

    __slots__ = ()


def clean(value: object) -> str:
    """Replace what no document may hold (control characters, lone surrogates) in text from outside."""
    return "".join(
        c
        if (c.isprintable() or c in "\n\t") and not "\ud800" <= c <= "\udfff"
        else "\N{REPLACEMENT CHARACTER}"
        for c in str(value)
    )


def text(value: object) -> Markup:
    """Escape `value` for use between tags or inside a quoted attribute."""
    return value if isinstance(value, Markup) else Markup(escape(clean(value)))


def join(parts: Iterable[object]) -> Markup:
    """Concatenate parts, escaping those that are plain strings."""
    return Markup("".join(text(part) for part in parts))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """Build an element. `class_` stands for class, `_` for `-`; an attribute that is None is left out."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in ("meta", "br", "hr", "col"):
        return Markup(f"<{name}{pairs}>")
    return Markup(f"<{name}{pairs}>{join(children)}</{name}>")


def _plain(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
