"""Calls typed on a command line: ``name(option=value, ...)`` with literal values, several with commas."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from steepest.race.records import RaceError


def split_items(text: str) -> list[str]:
    """Split at the commas that are in no bracket; empty items are dropped."""
    items, depth, current = [], 0, ""
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            items.append(current)
            current = ""
        else:
            current += character
    items.append(current)
    return [item.strip() for item in items if item.strip()]


def parse_call(text: str, what: str) -> tuple[str, dict[str, Any]]:
    """Split ``head(option=value, ...)`` into the head and its options; without brackets there are none.

    Args:
        text: the call.
        what: what it names, for the message: "task", "optimizer".

    Raises:
        RaceError: it is not such a call, or a value is not a literal.
    """
    text = text.strip()
    head, bracket, _ = text.partition("(")
    if not bracket:
        return head, {}
    try:
        tree = ast.parse(f"f{text[len(head) :]}", mode="eval").body
        if not isinstance(tree, ast.Call) or tree.args or any(k.arg is None for k in tree.keywords):
            raise ValueError
        if not (isinstance(tree.func, ast.Name) and tree.func.id == "f"):
            raise ValueError
        return head.strip(), {str(k.arg): ast.literal_eval(k.value) for k in tree.keywords}
    except (SyntaxError, ValueError):
        raise RaceError(
            f"cannot read {what} {text!r}: write Name(argument=value, ...) with numbers, strings, "
            "True, False, None, tuples, lists or dicts as values"
        ) from None


def write_call(head: str, options: Mapping[str, Any]) -> str:
    """Return the text that `parse_call` reads back."""
    inside = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return f"{head}({inside})" if options else head
