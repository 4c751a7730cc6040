"""Coordinates from the covariances of a layer's inputs and output gradients (K-FAC)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from steepest.linalg import symmetric_eigen
from steepest.preconditioners.base import Coordinates, Preconditioner
from steepest.preconditioners.diagonal import Scaling
from steepest.preconditioners.eigenbasis import Rotated


@dataclass(frozen=True)
class ActivationKronecker(Preconditioner):
    """The metric A (x) B: A the covariance of output gradients, B that of inputs, bias as an input of 1.

    A = Q_A diag(a) Q_A^T and B alike; a direction is Q_A [(Q_A^T G Q_B) / metric] Q_B^T with
    metric_ij = a_i b_j + damping, or with ``factored_damping``
    (a_i + pi sqrt(damping)) (b_j + sqrt(damping) / pi), pi^2 = mean(a) / mean(b).

    The covariances come with the call: ``hypers["statistics"]`` is None or (A, B) of the examples since the
    last step, (k, m, m) and (k, n, n). They are averaged with ``stat_decay`` and weights that sum to one, so
    that the first average is the first observation. Averages with a number that is not finite are left out.
    Bases are computed at step 1 and every ``precondition_frequency`` steps. Eigenvalues at rounding level
    count as zero, and with no damping a zero direction stays zero. Before any statistics A and B are 1.

    ``statistics="input"`` keeps A = 1. ``diagonal_input=True`` is for embeddings, stored (n, m): B is the
    frequency of every index, (k, n), always the current one.

    State: ``input_covariance``, ``input_basis``, ``input_eigenvalues``, the same three for ``output``,
    ``statistics_weight`` (the sum of weights before they were normalised) and ``fallbacks`` (how often an
    eigendecomposition needed a second attempt).
    """

    damping: float = 1e-2
    stat_decay: float = 0.95
    factored_damping: bool = False
    precondition_frequency: int = 10
    statistics: Literal["both", "input"] = "both"
    diagonal_input: bool = False

    def __post_init__(self) -> None:
        if self.statistics not in ("both", "input"):
            raise ValueError(f"statistics must be 'both' or 'input', got {self.statistics!r}")
        if not isinstance(self.factored_damping, bool):
            raise ValueError(f"factored_damping must be True or False, got {self.factored_damping!r}")

    @property
    def needs_step(self) -> bool:
        """True: the count decides when bases are computed."""
        return True

    @property
    def scheduled(self) -> bool:
        """True."""
        return True

    def hypers(self) -> dict[str, Any]:
        """Return ``damping`` and ``stat_decay``."""
        return {"damping": self.damping, "stat_decay": self.stat_decay}

    def init(self, x: Tensor) -> dict[str, Tensor]:
        """Return zero covariances with weight zero, identity bases and unit eigenvalues."""
        k, m, n = x.shape
        state = {
            "statistics_weight": x.new_zeros(k),
            "fallbacks": torch.zeros_like(x[:, 0, 0], dtype=torch.int64),
        }
        if self.diagonal_input:
            m, n = n, m
            state["input_covariance"] = x.new_zeros(k, n)
        for side, d in self._full_sides(m, n):
            state[f"{side}_covariance"] = x.new_zeros(k, d, d)
            state[f"{side}_basis"] = torch.eye(d, dtype=x.dtype, device=x.device).repeat(k, 1, 1)
            state[f"{side}_eigenvalues"] = x.new_ones(k, d)
        return state

    def prepare(
        self, grad: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]
    ) -> Coordinates:
        """Average the statistics, refresh the bases when they are due, and return the coordinates."""
        if "statistics" not in hypers:
            raise TypeError(
                "ActivationKronecker needs what a layer saw and not gradients alone: use KFAC(model, ...)"
            )
        if (batch := hypers["statistics"]) is not None:
            self._average(batch, state, hypers["stat_decay"])
        if (hypers["step"] - 1) % self.precondition_frequency == 0:
            self._refresh(state)
        a = state.get("output_eigenvalues")
        a = torch.ones_like(state["statistics_weight"])[:, None] if a is None else a
        if self.diagonal_input:
            seen = state["statistics_weight"][:, None] > 0
            b = torch.where(seen, state["input_covariance"], 1.0)
            metric = self._metric(b[:, :, None], a[:, None, :], hypers["damping"])
            return Rotated(None, state.get("output_basis"), Scaling(metric))
        metric = self._metric(a[:, :, None], state["input_eigenvalues"][:, None, :], hypers["damping"])
        return Rotated(state.get("output_basis"), state["input_basis"], Scaling(metric))

    def _full_sides(self, m: int, n: int) -> list[tuple[str, int]]:
        sides = [] if self.diagonal_input else [("input", n)]
        return sides if self.statistics == "input" else [*sides, ("output", m)]

    def _average(
        self, batch: tuple[Tensor | None, Tensor], state: MutableMapping[str, Tensor], b: Any
    ) -> None:
        new = {"output_covariance": batch[0], "input_covariance": batch[1]}
        new = {name: value for name, value in new.items() if name in state and value is not None}
        weight = state["statistics_weight"]
        usable = torch.ones_like(weight, dtype=torch.bool)
        for value in new.values():
            usable &= value.isfinite().flatten(1).all(1)
        grown = b * weight + (1 - b)
        share = (1 - b) / grown
        for name, value in new.items():
            mean = state[name]
            ones = (-1, *(1,) * (mean.ndim - 1))
            mean.lerp_(torch.where(usable.view(ones), value.to(mean.dtype), mean), share.view(ones))
        weight.copy_(torch.where(usable, grown, weight))

    def _refresh(self, state: MutableMapping[str, Tensor]) -> None:
        """Compute bases and eigenvalues, keeping the old ones where there is nothing or no success."""
        for side in ("input", "output"):
            if f"{side}_basis" not in state:
                continue
            eigen = symmetric_eigen(state[f"{side}_covariance"])
            state["fallbacks"].add_(eigen.retried)
            keep = eigen.failed | (state["statistics_weight"] == 0)
            d, eps = eigen.values.shape[-1], torch.finfo(eigen.values.dtype).eps
            values = torch.where(eigen.values > d * eps * eigen.values[:, -1:], eigen.values, 0.0)
            basis, old = state[f"{side}_basis"], state[f"{side}_eigenvalues"]
            basis.copy_(torch.where(keep[:, None, None], basis, eigen.vectors))
            old.copy_(torch.where(keep[:, None], old, values))

    def _metric(self, rows: Tensor, columns: Tensor, damping: Any) -> Tensor:
        """Return the damped product of eigenvalues (k, m, 1) and (k, 1, n); infinite where it is zero."""
        if self.factored_damping:
            pi = (rows.mean((1, 2), keepdim=True) / columns.mean((1, 2), keepdim=True)).sqrt()
            pi = torch.where(pi.isfinite() & (pi > 0), pi, 1.0)
            root = damping**0.5
            metric = (rows + pi * root) * (columns + root / pi)
        else:
            metric = rows * columns + damping
        return torch.where(metric > 0, metric, float("inf"))


def squared_length(parts: Iterable[tuple[Any, Tensor, Tensor]]) -> Tensor:
    """Return the sum of lr^2 <U, G> over (lr, U, G): about twice the KL divergence of a step."""
    total = torch.zeros((), device="cpu")
    for lr, u, g in parts:
        wide = g.dtype if g.device.type == "mps" else torch.float64
        share = lr * lr * (u.to(wide) * g.to(wide)).sum()
        total = total.to(share) + share
    return total


def kl_factor(total: Tensor, kl_clip: Any) -> Tensor:
    """Return min(1, sqrt(kl_clip / |total|)), where ``total`` is :func:`squared_length`; 1 for total 0."""
    return (kl_clip / total.abs()).sqrt().clamp(max=1)
