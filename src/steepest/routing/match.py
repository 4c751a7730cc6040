"""What an override applies to: a pattern of names, a module type or a predicate."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable
from typing import Any

from torch import nn

from steepest.routing.leaves import Leaf

Match = str | re.Pattern[str] | type[nn.Module] | Callable[[str, nn.Parameter], Any]
"""A shell pattern or regular expression for names, a module class, or ``predicate(name, parameter)``."""


def written(match: Match) -> str:
    """Return a match as a person wrote it."""
    if isinstance(match, str):
        return repr(match)
    if isinstance(match, re.Pattern):
        return f"re.compile({match.pattern!r})"
    return getattr(match, "__name__", repr(match))


def matcher(match: Match) -> Callable[[Leaf], bool]:
    """Return the test of an override.

    Raises:
        TypeError: ``match`` is none of the four kinds.
    """
    if isinstance(match, str):
        found = re.compile(fnmatch.translate(match)).match
        return lambda leaf: any(found(name) for name in leaf.matchable)
    if isinstance(match, re.Pattern):
        return lambda leaf: any(match.search(name) for name in leaf.matchable)
    if isinstance(match, type):
        if not issubclass(match, nn.Module):
            raise TypeError(
                f"an override matches a torch.nn.Module class, a pattern of names or a predicate, got the "
                f"class {match.__name__}"
            )
        return lambda leaf: any(isinstance(module, match) for module in leaf.around.values())
    if callable(match):
        return lambda leaf: bool(match(leaf.name, leaf.param))
    raise TypeError(
        "an override matches a pattern of names ('blocks.*.attn'), re.compile(...), a module class or a "
        f"predicate(name, parameter), got {match!r}"
    )


def nothing(match: Match, leaves: list[Leaf]) -> str:
    """Return what to say of an override that matches no parameter."""
    told = f"{written(match)} matches no trainable parameter"
    if isinstance(match, type):
        holders = {type(module).__name__ for leaf in leaves for _, module in leaf.holders}
        return f"{told}; modules that hold one: {', '.join(sorted(holders))}"
    if not isinstance(match, str):
        return f"{told}; the first are {', '.join(repr(leaf.name) for leaf in leaves[:3])}"
    close = _closest(match, [name for leaf in leaves for name in leaf.matchable])
    return f"{told}; {'did you mean' if close else 'names are like'} " + " or ".join(
        repr(name) for name in close or [leaf.name for leaf in leaves[:3]]
    )


def _closest(pattern: str, names: list[str]) -> list[str]:
    """Return up to three names like a pattern, with its stars where they fit."""
    shapes = dict.fromkeys(re.sub(r"(?<![^.])\d+(?![^.])", "*", name) for name in names)
    near = difflib.get_close_matches(pattern, shapes, n=3, cutoff=0.6)
    if near:
        return near
    # A name without its beginning is the commonest slip.
    tail = pattern.strip("*.")
    if tail and any(tail in name for name in names):
        return [f"*{tail}*"]
    lasts = {name.rpartition(".")[2]: name for name in shapes}
    return [
        lasts[last] for last in difflib.get_close_matches(tail.rpartition(".")[2], lasts, n=2, cutoff=0.7)
    ]
