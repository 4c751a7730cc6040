"""What norms, preconditioners, momenta, step lengths and rules have in common."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from steepest.spelling import refuse_unknown

if TYPE_CHECKING:
    from typing_extensions import Self


class _OfInit:
    """The signature of a class, which ``inspect`` would else read from ``__new__``."""

    def __get__(self, instance: Any, owner: type) -> inspect.Signature:
        whole = inspect.signature(owner.__init__)
        return whole.replace(parameters=list(whole.parameters.values())[1:])


class Part:
    """A choice on one axis, or the four together: a value that can be compared, hashed and printed.

    Subclasses are frozen dataclasses. The printed form is what checkpoints keep of them.

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

    def hypers(self) -> dict[str, Any]:
        """Return the tunable numbers of this part by their name in ``param_groups``, with defaults."""
        return {}
