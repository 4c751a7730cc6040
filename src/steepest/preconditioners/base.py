"""What a preconditioner must be able to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, MutableMapping
from typing import Any, ClassVar

from torch import Size, Tensor

from steepest.part import Part


class Coordinates(ABC):
    """The coordinates of one step.

    For the norm |L W R| they are ``into(M) = L^-T M R^-T`` and ``back(U) = L^-1 U R^-1``; for |D * W| both
    divide by D. ``solve`` is the one after the other: the whole preconditioned gradient of a Frobenius
    rule with dual scaling.
    """

    @abstractmethod
    def into(self, m: Tensor) -> Tensor:
        """Return ``m`` in these coordinates."""

    @abstractmethod
    def back(self, u: Tensor) -> Tensor:
        """Return a direction found in these coordinates in those of the weight."""

    def solve(self, m: Tensor) -> Tensor:
        """Return ``back(into(m))``, cheaper where the two roots combine."""
        return self.back(self.into(m))


class Preconditioner(Part, ABC):
    """One choice of coordinates. Subclasses are frozen dataclasses, so that rules can be compared."""

    batches: ClassVar[bool] = False
    """Whether stacking matrices of one shape makes the coordinates cheaper."""
    turns: ClassVar[bool] = False
    """Whether the coordinates are ``Rotated``. A linear momentum before the oracle is then kept in the bases,
    where the gradient is needed anyway: one rotation instead of two. Its buffers' names are handed over as
    ``hypers["turned"]``, to be carried along when bases change."""

    @property
    def matrix_only(self) -> bool:
        """Whether the coordinates have no meaning for vectors and scalars."""
        return False

    @property
    def needs_step(self) -> bool:
        """Whether the count of steps is part of the formula."""
        return False

    @property
    def skipped(self) -> int:
        """How many first steps only gather statistics; the last of them has count 0."""
        return 0

    @property
    def scheduled(self) -> bool:
        """Whether the count of steps decides what is computed (refreshes), so that the host must know it."""
        return False

    @property
    def staggered(self) -> int:
        """Over how many steps the refreshes of different parameters are spread; 1 if all come together."""
        return 1

    def refresh_cost(self, shape: Size) -> float:
        """Return the work of a refresh for one parameter of this shape, up to a factor."""
        return 0.0

    def init(self, x: Tensor) -> dict[str, Tensor]:
        """Return the state for a stack ``x`` (k, m, n) before its first step, every tensor (k, ...)."""
        return {}

    @abstractmethod
    def prepare(
        self, grad: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]
    ) -> Coordinates | None:
        """Update the statistics that this step uses, in place, and return its coordinates.

        None means that this step, one of the :attr:`skipped`, only gathers statistics: momentum and weight
        stay as they are.
        """

    def finish(self, grad: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]) -> None:
        """Update the statistics that only later steps use, in place."""

    def for_shape(self, shape: Size) -> Preconditioner:
        """Return the preconditioner to use for one parameter of this shape."""
        return self

    def apart(self) -> Preconditioner:
        """Return the preconditioner for rules that need ``into`` and ``back``, not ``solve`` alone.

        Raises ``ValueError`` for one that only has a meaning as a whole.
        """
        return self
