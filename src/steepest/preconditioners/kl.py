"""The coupled Kronecker statistics of KL-Shampoo: each side whitened by the other."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from torch import Size, Tensor

from steepest.linalg import Refreshed, eigenbasis, refresh_basis
from steepest.preconditioners.base import Coordinates, Preconditioner
from steepest.preconditioners.diagonal import Scaling
from steepest.preconditioners.factors import (
    accumulate_,
    count_,
    new_counter,
    new_factor,
    product,
    statistics_beta,
)
from steepest.preconditioners.rotated import SIDES, Rotated, carry_
from steepest.preconditioners.schedule import Timing, background, due


@dataclass(frozen=True)
class KLEigenbasis(Preconditioner):
    """Bases Q_a, Q_b and eigenvalues lam_a, lam_b of two covariances that explain the gradient together.

    With b the coefficient ``beta`` (the hyperparameter ``shampoo_beta``, or ``beta2`` where that is None),
    after every step but the first:

        S_a <- b S_a + (1-b)/n G S_b^-1 G^T with S_b^-1 = Q_b diag(1/lam_b) Q_b^T, and S_b alike
        lam_a <- b lam_a + (1-b) mean_j (Q_a^T G Q_b)_ij^2 / lam_b,j, and lam_b alike
        Q <- QR(S Q) whenever ``frequency`` divides the count of steps that move, or with
        ``refresh_timing="staggered"`` at a step of the cycle of each parameter's own; with ``"background"``
        S is that of the refresh before

    No lam^-1/2 exceeds max(10, min(d, 4000)). The first step moves nothing: S_a = (1-b) G G^T / n, S_b =
    (1-b) G^T G / m, Q their eigenvectors by descending eigenvalue, and all lam 0.1.

    In the bases D^2_ij = sqrt(lam_a,i lam_b,j) + eps (KL-Shampoo), or what ``inside`` makes of the projected
    gradient, with b as its coefficient (KL-SOAP).

    State: ``left``, ``left_basis`` (m, m), ``right``, ``right_basis`` (n, n), ``left_values`` (m, 1) and
    ``right_values`` (1, n) in float64, the statistics' powers of two ``left_unit`` and ``right_unit``, what
    ``inside`` keeps, and ``fallbacks``, the number of bases for which the first attempt failed. In the
    background also ``left_pending`` and ``right_pending``, the S of the last refresh.
    """

    inside: Preconditioner | None = None
    beta: float = 0.98
    eps: float = 1e-8
    frequency: int = 10
    refresh_timing: Timing = "together"

    batches = True
    turns = True

    def __post_init__(self) -> None:
        if self.inside is not None and (not isinstance(self.inside, Preconditioner) or self.inside.skipped):
            raise TypeError(
                f"inside must be None or a preconditioner such as Diagonal(), got {self.inside!r}"
            )
        if self.frequency < 1:
            raise ValueError(f"frequency must be >= 1, got {self.frequency!r}")
        if self.refresh_timing not in get_args(Timing):
            raise ValueError(
                f"refresh_timing must be one of {', '.join(map(repr, get_args(Timing)))}, "
                f"got {self.refresh_timing!r}"
            )

    @property
    def matrix_only(self) -> bool:
        """True: vectors have no second side."""
        return True

    @property
    def skipped(self) -> int:
        """One: the first step only gathers statistics."""
        return 1

    @property
    def scheduled(self) -> bool:
        """True: bases are refreshed at some steps only."""
        return True

    @property
    def staggered(self) -> int:
        """How many steps a cycle has, if refreshes are spread over it."""
        return self.frequency if self.refresh_timing == "staggered" else 1

    def refresh_cost(self, shape: Size) -> float:
        """Return the cubes of both sides."""
        return float(shape[0] ** 3 + shape[1:].numel() ** 3)

    def hypers(self) -> dict[str, Any]:
        """Return ``eps``, ``beta2`` and ``shampoo_beta``."""
        return {"eps": self.eps, "beta2": self.beta, "shampoo_beta": None}

    def apart(self) -> Preconditioner:
        """Return this with ``inside`` apart."""
        return self if self.inside is None else replace(self, inside=self.inside.apart())

    def init(self, x: Tensor) -> dict[str, Tensor]:
        """Return zero statistics, identity bases, eigenvalues of 0.1 and the state of ``inside``."""
        state = {} if self.inside is None else self.inside.init(x)
        wide = x.dtype if x.device.type == "mps" else torch.float64
        for side, size in zip(SIDES, x.shape[-2:], strict=True):
            factor, unit = new_factor(x, x.shape[0], size=size)
            basis = torch.eye(size, dtype=x.dtype, device=x.device).expand_as(factor).clone()
            values = torch.full(_along(side, x.shape[0], size), 0.1, dtype=wide, device=x.device)
            state |= {side: factor, f"{side}_unit": unit, f"{side}_basis": basis, f"{side}_values": values}
            if self.refresh_timing == "background":
                state[f"{side}_pending"] = torch.zeros_like(factor)
        return {**state, "fallbacks": new_counter(x)}

    def prepare(
        self, grad: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]
    ) -> Coordinates | None:
        """Return the coordinates of the statistics so far, and update these; None in the first step."""
        m, n = grad.shape[-2:]
        if hypers["step"] == 0:
            self._accumulate(grad, grad, state, hypers, (n, m))
            return None
        left, right = (state[f"{side}_basis"] for side in SIDES)
        by_right = product(grad, right)
        projected = product(left.mT, by_right)
        by_left = product(left.mT, grad)
        if self.inside is None:
            inside = self._scaling(grad, state, hypers)
        else:
            inside = self.inside.prepare(projected, state, {**hypers, "beta2": statistics_beta(hypers)})
        assert inside is not None  # refused in __post_init__
        values = [state[f"{side}_values"] for side in SIDES]
        rows, columns = (v.rsqrt().to(grad.dtype) for v in values)
        self._accumulate(by_right.mul_(columns), by_left.mul_(rows), state, hypers, (n, m))
        self._average(projected, values, statistics_beta(hypers))
        return Rotated(left, right, inside, projected)

    def finish(self, grad: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]) -> None:
        """Take the bases anew that are due."""
        who = due(hypers, self.frequency, 0, grad)
        if who is None:
            return
        later = self.refresh_timing == "background"
        for side in SIDES:
            basis, names = state[f"{side}_basis"], (f"{side}_pending", f"{side}_basis")
            old = basis[who].clone()
            if hypers["step"] == 0:
                new = eigenbasis(state[side][who], old)
                count_(state, new.retried, who)
            else:
                if later:
                    new = Refreshed(*background(state, hypers).take(refresh_basis, names))
                else:
                    new = refresh_basis(state[side][who], old)
                count_(state, new.kept, who)
            basis[who] = new.value
            if later:
                state[names[0]].copy_(state[side])
                background(state, hypers).ask(refresh_basis, names)
            if hypers["step"] > 0:
                carry_(state, hypers, side, who, old, new.value)

    def _accumulate(
        self,
        by_right: Tensor,
        by_left: Tensor,
        state: MutableMapping[str, Tensor],
        hypers: Mapping[str, Any],
        counts: tuple[int, int],
    ) -> None:
        """Add to each covariance the gradient that the other side has whitened."""
        beta = statistics_beta(hypers)
        for side, x, count in zip(SIDES, (by_right, by_left.mT), counts, strict=True):
            accumulate_(state[side], state[f"{side}_unit"], x, beta, (1 - beta) / max(1, count))

    def _average(self, projected: Tensor, values: list[Tensor], beta: Any) -> None:
        """Update the eigenvalues of both sides from the squares of the projected gradient."""
        m, n = projected.shape[-2:]
        if not projected.numel():
            return
        squares = projected.to(values[0].dtype, copy=True).square_()
        means = (squares @ values[1].reciprocal().mT) / n, (values[0].reciprocal().mT @ squares) / m
        for v, mean, size in zip(values, means, (m, n), strict=True):
            v.mul_(beta).add_((1 - beta) * mean)
            v.clamp_(min=max(10, min(size, 4000)) ** -2.0)

    def _scaling(
        self, grad: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]
    ) -> Coordinates:
        largest = torch.finfo(grad.dtype).max
        rows, columns = (state[f"{side}_values"].sqrt().clamp_(max=largest).to(grad.dtype) for side in SIDES)
        return Scaling((rows * columns).add_(hypers["eps"]).clamp_(max=largest))


def _along(side: str, count: int, size: int) -> Size:
    return Size((count, size, 1) if side == "left" else (count, 1, size))
