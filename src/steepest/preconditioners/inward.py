"""Coordinates used on the way to the oracle only."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Size, Tensor

from steepest.preconditioners.base import Coordinates, Preconditioner


@dataclass(frozen=True)
class OneWay(Coordinates):
    """Other coordinates whose ``back`` is left out."""

    inner: Coordinates

    def into(self, m: Tensor) -> Tensor:
        """Go into the inner coordinates."""
        return self.inner.into(m)

    def back(self, u: Tensor) -> Tensor:
        """Return ``u``: the oracle's point is taken as the step."""
        return u


@dataclass(frozen=True)
class InwardOnly(Preconditioner):
    """``inner`` decides what the oracle sees, but the step stays in the unit ball of the base norm.

    S = u(into(M)) instead of back(u(into(M))): not steepest descent in a preconditioned norm, but in use,
    since the step keeps the plain norm's length and lr. <M, S> may be negative in principle.
    """

    inner: Preconditioner

    def __post_init__(self) -> None:
        if not isinstance(self.inner, Preconditioner):
            raise TypeError(f"inner must be a preconditioner such as Diagonal(), got {self.inner!r}")

    @property
    def batches(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the inner one."""
        return self.inner.batches

    @property
    def matrix_only(self) -> bool:
        """As the inner one."""
        return self.inner.matrix_only

    @property
    def needs_step(self) -> bool:
        """As the inner one."""
        return self.inner.needs_step

    @property
    def scheduled(self) -> bool:
        """As the inner one."""
        return self.inner.scheduled

    @property
    def skipped(self) -> int:
        """As the inner one."""
        return self.inner.skipped

    @property
    def staggered(self) -> int:
        """As the inner one."""
        return self.inner.staggered

    def refresh_cost(self, shape: Size) -> float:
        """Return that of the inner one."""
        return self.inner.refresh_cost(shape)

    def hypers(self) -> dict[str, Any]:
        """Return the inner one's."""
        return self.inner.hypers()

    def init(self, x: Tensor) -> dict[str, Tensor]:
        """Return the inner one's."""
        return self.inner.init(x)

    def for_shape(self, shape: Size) -> Preconditioner:
        """Return this around the inner one for the shape."""
        return replace(self, inner=self.inner.for_shape(shape))

    def apart(self) -> Preconditioner:
        """Return this around the inner one whose directions are wanted apart."""
        return replace(self, inner=self.inner.apart())

    def prepare(
        self, grad: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]
    ) -> Coordinates | None:
        """Return the inner coordinates without their way back."""
        coordinates = self.inner.prepare(grad, state, hypers)
        return None if coordinates is None else OneWay(coordinates)

    def finish(self, grad: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]) -> None:
        """Let the inner one finish."""
        self.inner.finish(grad, state, hypers)
