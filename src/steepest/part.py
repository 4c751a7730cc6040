"""What norms, preconditioners, momenta, step lengths and rules have in common."""

from __future__ import annotations

from typing import Any

from steepest.spelling import Spelled


class Part(Spelled):
    """A choice on one axis, or the four together: a value that can be compared, hashed and printed.

    Subclasses are frozen dataclasses. The printed form is what checkpoints keep of them.

    Raises:
        TypeError: an argument that the subclass does not know.
    """

    def hypers(self) -> dict[str, Any]:
        """Return the tunable numbers of this part by their name in ``param_groups``, with defaults."""
        return {}
