"""Arguments that do not exist are refused with the name that was probably meant."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, ParamSpec, TypeVar

from steepest._resolve import suggest

P = ParamSpec("P")
R = TypeVar("R")


def spelled(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function with errors that say what a misspelt argument should be called.

    Raises:
        TypeError: when called with a name that the function does not know.
    """
    known = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        refuse_unknown(function.__name__, kwargs, known)
        return function(*args, **kwargs)

    return checked


def refuse_unknown(where: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise a ``TypeError`` for the first argument given that is not known."""
    for name in given:
        if name not in known:
            hint = suggest(name, list(known)) or "."
            raise TypeError(
                f"{where} got an unknown argument {name!r}{hint} Known: {', '.join(known) or 'none'}"
            )
