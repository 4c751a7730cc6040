"""What a misspelt name was probably meant to be, and errors that say so."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

P = ParamSpec("P")
R = TypeVar("R")

_ALIASES = {"learning_rate": "lr", "wd": "weight_decay", "decay": "weight_decay", "beta": "betas"}


def suggest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """Return "; did you mean 'x'?" for the closest known name, capitals aside, or nothing."""
    folded = {candidate.casefold(): candidate for candidate in known}
    meant = _ALIASES.get(name)
    if meant not in folded:
        meant = next(iter(difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=cutoff)), None)
    return f"; did you mean {folded[meant]!r}?" if meant else ""


def spelled(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function with errors that say what a misspelt argument should be called.

    Raises:
        TypeError: when called with a name that the function does not know.
    """
    name = function.__qualname__.removesuffix(".__init__")
    known = [parameter for parameter in inspect.signature(function).parameters if parameter != "self"]

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        refuse_unknown(name, kwargs, known)
        return function(*args, **kwargs)

    return checked


def refuse_unknown(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise a ``TypeError`` for the first argument given that is not known."""
    known = list(known)
    for name in given:
        if name not in known:
            hint = suggest(name, known) or "."
            raise TypeError(
                f"{where} got an unknown argument {name!r}{hint} Known: {', '.join(known) or 'none'}"
            )


class _OfInit:
    """The signature of a class, which ``inspect`` would else read from ``__new__``."""

    def __get__(self, instance: Any, owner: type) -> inspect.Signature:
        whole = inspect.signature(owner.__init__)
        return whole.replace(parameters=list(whole.parameters.values())[1:])


class Spelled:
    """A dataclass whose misspelt arguments are told with what was meant.

    Raises:
        TypeError: an argument that the subclass does not know.
    """

    if not TYPE_CHECKING:
        __signature__ = _OfInit()

    def __new__(cls, *_: Any, **given: Any) -> Self:
        """Refuse a misspelt argument; ``__init__`` does all else."""
        if not given.keys() <= getattr(cls, "__dataclass_fields__", {}).keys():
            refuse_unknown(cls.__name__, given, inspect.signature(cls).parameters)
        return super().__new__(cls)
