"""Eigenbases: a norm taken in the eigenvectors of the row and column second moments (SOAP, SPlus)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Size, Tensor

from steepest.linalg import Refreshed, Robust, eigenbasis, refresh_basis
from steepest.linalg.scaling import power_of_two
from steepest.preconditioners.base import Coordinates, Preconditioner
from steepest.preconditioners.factors import (
    accumulate_,
    count_,
    new_counter,
    new_factor,
    sandwich,
    statistics_beta,
    transposed,
)
from steepest.preconditioners.identity import Identity
from steepest.preconditioners.rotated import SIDES, Rotated, carry_
from steepest.preconditioners.schedule import Timing, background, due

Start = Literal["skip", "current", "identity"]
Refresh = Literal["qr", "eigh"]


@dataclass(frozen=True)
class Eigenbasis(Preconditioner):
    """L = Q_L^T, R = Q_R from the eigenvectors of A (of G G^T) and B (of G^T G), then ``inside``.

    ``inside`` is any preconditioner, fed with the projected gradient: Identity for SPlus, Diagonal(1/2) for
    SOAP. Its state of the parameter's shape is permuted when the basis is. A and B are exponential averages
    with coefficient ``beta``: the hyperparameter ``beta2``, or ``shampoo_beta`` where ``inside`` has a
    ``beta2`` of its own; None then means the same.

    ``start`` says when the current gradient enters A and B, and what the first step does:

    - ``"skip"``: after use; the first step only sets up A, B and the bases, and t counts those after it
    - ``"current"``: before use
    - ``"identity"``: after use; the first step is taken in the weight's own coordinates

    The first bases are eigenvectors by descending eigenvalue. Whenever ``frequency`` divides the count of
    steps that move, they are refreshed: ``"qr"`` sorts the columns by diag(Q^T A Q) and takes Q <- QR(A Q),
    ``"eigh"`` takes eigenvectors anew. With ``refresh_timing="staggered"`` every parameter does so at a step
    of the cycle of its own, so that no step bears all of the work. With ``"background"`` a refresh takes the
    bases of the statistics as they were at the refresh before. A side longer than ``max_dim`` is not rotated.

    Unless ``inside`` is Identity, a linear momentum before the oracle is kept in the bases, and turned with
    them.

    State: ``left``, ``left_basis`` (m, m), ``right``, ``right_basis`` (n, n), the statistics' powers of two
    ``left_unit`` and ``right_unit``, what ``inside`` keeps, and ``fallbacks``, the number of bases for which
    the first attempt failed. In the background also ``left_pending`` and ``right_pending``, the statistics at
    the last refresh, which the next bases are of.
    """

    inside: Preconditioner = field(default_factory=Identity)
    beta: float | None = 0.95
    frequency: int = 10
    max_dim: int = 10000
    start: Start = "current"
    refresh: Refresh = "qr"
    refresh_timing: Timing = "together"

    batches = True

    def __post_init__(self) -> None:
        for name, allowed in (
            ("start", get_args(Start)),
            ("refresh", get_args(Refresh)),
            ("refresh_timing", get_args(Timing)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name} must be one of {', '.join(map(repr, allowed))}, got {getattr(self, name)!r}"
                )
        if not isinstance(self.inside, Preconditioner) or self.inside.skipped:
            raise TypeError(f"inside must be a preconditioner such as Diagonal(), got {self.inside!r}")
        if self.beta is None and "beta2" not in self.inside.hypers():
            raise ValueError(f"beta must be a number in [0, 1) for inside={self.inside!r}, got None")
        if self.frequency < 1:
            raise ValueError(f"frequency must be >= 1, got {self.frequency!r}")
        if self.max_dim < 0:
            raise ValueError(f"max_dim must be >= 0, got {self.max_dim!r}")

    @property
    def turns(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether ``inside`` needs the projected gradient."""
        return not isinstance(self.inside, Identity)

    @property
    def matrix_only(self) -> bool:
        """True: vectors have no eigenbasis."""
        return True

    @property
    def skipped(self) -> int:
        """How many first steps only gather statistics."""
        return int(self.start == "skip")

    @property
    def scheduled(self) -> bool:
        """True: bases are refreshed at some steps only."""
        return True

    @property
    def staggered(self) -> int:
        """How many steps a cycle has, if refreshes are spread over it."""
        return self.frequency if self.refresh_timing == "staggered" else 1

    def refresh_cost(self, shape: Size) -> float:
        """Return the cubes of the sides that are rotated."""
        return float(sum(side**3 for side in (shape[0], shape[1:].numel()) if side <= self.max_dim))

    def hypers(self) -> dict[str, Any]:
        """Return the numbers of ``inside``, and ``shampoo_beta`` or ``beta2``."""
        inside = self.inside.hypers()
        return {**inside, "shampoo_beta" if "beta2" in inside else "beta2": self.beta}

    def for_shape(self, shape: Size) -> Preconditioner:
        """Return ``inside`` alone for vectors."""
        inside = self.inside.for_shape(shape)
        return inside if len(shape) < 2 else replace(self, inside=inside)

    def apart(self) -> Preconditioner:
        """Return this with ``inside`` apart."""
        return replace(self, inside=self.inside.apart())

    def init(self, x: Tensor) -> dict[str, Tensor]:
        """Return zero statistics, identity bases and the state of ``inside``."""
        state = self.inside.init(x)
        for side, size in zip(SIDES, x.shape[-2:], strict=True):
            if size <= self.max_dim:
                factor, unit = new_factor(x, x.shape[0], size=size)
                basis = torch.eye(size, dtype=x.dtype, device=x.device).expand_as(factor).clone()
                state |= {side: factor, f"{side}_unit": unit, f"{side}_basis": basis}
                if self.refresh_timing == "background":
                    state[f"{side}_pending"] = torch.zeros_like(factor)
        return {**state, "fallbacks": new_counter(x)}

    def prepare(
        self, grad: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]
    ) -> Coordinates | None:
        """Update what this step uses; return None in a step that only gathers statistics."""
        if self.start == "skip" and hypers["step"] == 0:
            return None
        if self.start == "current":
            self._accumulate(grad, state, hypers)
        left, right = state.get("left_basis"), state.get("right_basis")
        if not self.turns:
            return Rotated(left, right, self.inside)  # pyright: ignore[reportArgumentType]
        projected = sandwich(transposed(left), grad, right)
        inside = self.inside.prepare(projected, state, hypers)
        assert inside is not None  # refused in __post_init__
        return Rotated(left, right, inside, projected)

    def finish(self, grad: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]) -> None:
        """Update the statistics after their use, unless they were before it."""
        if self.start != "current":
            self._accumulate(grad, state, hypers)

    def _accumulate(
        self, grad: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]
    ) -> None:
        if not grad.numel():
            return
        beta, size = statistics_beta(hypers), power_of_two(grad)
        for side, x in zip(SIDES, (grad, grad.mT), strict=True):
            if side in state:
                accumulate_(state[side], state[f"{side}_unit"], x, beta, 1 - beta, size)
                self._turn(side, state, hypers, grad.shape)

    def _turn(
        self, side: str, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any], shape: Size
    ) -> None:
        """Take the bases of one side anew that are due, with what is kept in them."""
        first = 0 if self.start == "skip" else 1
        basis = state[f"{side}_basis"]
        who = due(hypers, self.frequency, first, basis)
        if who is None:
            return
        old = basis[who].clone()
        later, names = self.refresh_timing == "background", (f"{side}_pending", f"{side}_basis")
        if hypers["step"] == first:
            new = eigenbasis(state[side][who], old)
        elif later:
            kind = Robust if self.refresh == "eigh" else Refreshed
            new = kind(*background(state, hypers).take(self._renew, names))
        else:
            new = self._renew(state[side][who], old)
        if isinstance(new, Refreshed):
            count_(state, new.kept, who)
            self._permute(side, state, new.permutation, shape, who)
        else:
            count_(state, new.retried, who)
        basis[who] = new.value
        if later:
            state[names[0]].copy_(state[side])
            background(state, hypers).ask(self._renew, names)
        if hypers["step"] > 0:
            carry_(state, hypers, side, who, old, new.value)

    @property
    def _renew(self) -> Callable[[Tensor, Tensor], Robust | Refreshed]:
        """How bases become those of a statistic, given the old ones."""
        return eigenbasis if self.refresh == "eigh" else _sorted_refresh

    def _permute(
        self,
        side: str,
        state: MutableMapping[str, Tensor],
        order: Tensor,
        shape: Size,
        who: Tensor | slice,
    ) -> None:
        along = order[:, :, None] if side == "left" else order[:, None, :]
        for name, value in self.inside.init(torch.empty(shape, device="meta")).items():
            if value.shape == shape:
                kept = state[name][who]
                state[name][who] = kept.gather(-2 if side == "left" else -1, along.expand(kept.shape))


def _sorted_refresh(a: Tensor, q: Tensor) -> Refreshed:
    return refresh_basis(a, q, sort=True)
