"""Grafting: the direction of one preconditioner with the length of another."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Size, Tensor

from steepest.numeric import length
from steepest.preconditioners.base import Coordinates, Preconditioner

_TINY = 1e-16
_LIKE = torch.empty(1, 3, 5, device="meta")
"""Tells the names of states."""


@dataclass(frozen=True)
class Rescaled(Coordinates):
    """P |graft| / (|P| + 1e-16) for P the solution of ``inside``."""

    inside: Coordinates
    graft: Coordinates

    def into(self, m: Tensor) -> Tensor:
        """Return ``m`` in the coordinates of ``inside``."""
        return self.inside.into(m)

    def back(self, u: Tensor) -> Tensor:
        """Return a direction of ``inside`` in the weight's coordinates, without the graft's length."""
        return self.inside.back(u)

    def solve(self, m: Tensor) -> Tensor:
        """Return the solution of ``inside`` with the length of that of ``graft``."""
        p = self.inside.solve(m)
        return p * (length(self.graft.solve(m)) / (length(p) + _TINY)).to(p.dtype)


@dataclass(frozen=True)
class Grafted(Preconditioner):
    """The direction of ``inside`` with the Frobenius length that ``graft`` would give the same momentum.

    The numbers of ``graft`` are those it was made with; only those of ``inside`` stand in ``param_groups``.
    For a Frobenius rule with dual scaling alone: any other step has a length of its own.
    """

    inside: Preconditioner
    graft: Preconditioner

    batches = True

    def __post_init__(self) -> None:
        for name in ("inside", "graft"):
            part = getattr(self, name)
            if not isinstance(part, Preconditioner) or part.skipped:
                raise TypeError(f"{name} must be a preconditioner that uses every gradient, got {part!r}")
        shared = self.inside.init(_LIKE).keys() & self.graft.init(_LIKE).keys()
        if shared:
            raise ValueError(
                f"inside={self.inside!r} and graft={self.graft!r} would share the state "
                f"{', '.join(map(repr, sorted(shared)))}; take a graft that keeps no state of the same name"
            )

    @property
    def matrix_only(self) -> bool:
        """As ``inside`` is."""
        return self.inside.matrix_only

    @property
    def needs_step(self) -> bool:
        """True if one of the two counts steps."""
        return self.inside.needs_step or self.graft.needs_step

    @property
    def scheduled(self) -> bool:
        """True if one of the two refreshes at some steps only."""
        return self.inside.scheduled or self.graft.scheduled

    @property
    def staggered(self) -> int:
        """As ``inside`` is."""
        return self.inside.staggered

    def refresh_cost(self, shape: Size) -> float:
        """Return that of ``inside``."""
        return self.inside.refresh_cost(shape)

    def hypers(self) -> dict[str, Any]:
        """Return the numbers of ``inside``."""
        return self.inside.hypers()

    def for_shape(self, shape: Size) -> Preconditioner:
        """Return this with both for the shape."""
        return replace(self, inside=self.inside.for_shape(shape), graft=self.graft.for_shape(shape))

    def apart(self) -> Preconditioner:
        """Refuse."""
        raise ValueError(
            "grafting needs the Frobenius norm with DualScaled(): other steps have their own length"
        )

    def init(self, x: Tensor) -> dict[str, Tensor]:
        """Return the state of both."""
        return {**self.graft.init(x), **self.inside.init(x)}

    def prepare(
        self, grad: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]
    ) -> Coordinates:
        """Update both and return their coordinates."""
        graft = self.graft.prepare(grad, state, {**hypers, **self.graft.hypers()})
        inside = self.inside.prepare(grad, state, hypers)
        assert graft is not None and inside is not None  # refused in __post_init__  # noqa: PT018
        return Rescaled(inside, graft)

    def finish(self, grad: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]) -> None:
        """Update both after use."""
        self.graft.finish(grad, state, {**hypers, **self.graft.hypers()})
        self.inside.finish(grad, state, hypers)
