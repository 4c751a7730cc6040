"""From the gradients of one layer to its preconditioned directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steepest.linalg.precision import at_least_float32
from steepest.preconditioners.kfac.factors import ActivationKronecker
from steepest.preconditioners.kfac.layers import Layer

Statistics = tuple[Tensor | None, Tensor] | None
"""Covariances (A, B) of the examples since the last step."""


def layer_state(
    layer: Layer, preconditioner: ActivationKronecker, device: torch.device | None = None
) -> dict[str, Tensor]:
    """Return the state of a layer before its first step; on the meta device, names and shapes alone."""
    weight = layer.weight
    like = torch.empty(
        layer.matrix_shape(), dtype=at_least_float32(weight.dtype), device=device or weight.device
    )
    state = {name: value.squeeze(0) for name, value in preconditioner.init(like).items()}
    return {"step": torch.zeros((), device=device or torch.device("cpu")), **state}


@dataclass
class LayerStep:
    """A layer in one step: its gradients, None where there is none, its state, and how both meet."""

    layer: Layer
    grads: list[Tensor | None]
    state: dict[str, Tensor]
    preconditioner: ActivationKronecker
    hypers: Mapping[str, Any]

    def directions(self, grads: Sequence[Tensor | None], statistics: Statistics) -> list[Tensor]:
        """Count the step, update the state in place and return the directions of the layer's parameters.

        ``grads`` are whole. Missing ones are read as zeros: they are part of the matrix.
        """
        layer, state = self.layer, self.state
        if "statistics_weight" not in state:
            state.update({**layer_state(layer, self.preconditioner), **state})
        parts = [
            torch.zeros(p.shape, dtype=at_least_float32(p.dtype), device=p.device)
            if g is None
            else g.to(at_least_float32(p.dtype))
            for p, g in zip(layer.parameters, grads, strict=True)
        ]
        state["step"].add_(1)
        names = [name for name in state if name in FACTOR_STATE and name != "step"]
        coordinates = self.preconditioner.prepare(
            matrix := layer.join(parts),
            {name: state[name].unsqueeze(0) for name in names},
            {**self.hypers, "statistics": statistics, "step": state["step"].item()},
        )
        return layer.split(coordinates.solve(matrix))


def started(state: Mapping[str, Tensor] | None) -> bool:
    """Return whether a layer with this state has taken a step."""
    return bool(state) and "step" in state and bool(state["step"] > 0)


def observes_next(state: Mapping[str, Tensor] | None, frequency: int) -> bool:
    """Return whether the coming step is one that gathers statistics: the first and every ``frequency``-th."""
    return not state or "step" not in state or int(state["step"].item()) % frequency == 0


FACTOR_STATE = frozenset(
    {"step", "statistics_weight", "fallbacks"}
    | {f"{side}_{what}" for side in ("input", "output") for what in ("covariance", "basis", "eigenvalues")}
)
"""Names of a layer's state, kept under its weight."""
