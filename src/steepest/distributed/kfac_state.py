"""What the owner of a K-FAC layer keeps, in checkpoints."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steepest.distributed.owned_state import Kept
from steepest.preconditioners.kfac.direction import FACTOR_STATE, layer_state
from steepest.preconditioners.kfac.factors import ActivationKronecker
from steepest.preconditioners.kfac.layers import Layer


@dataclass(frozen=True)
class KeptLayer(Kept):
    """A layer whose owner keeps its factors, under the weight."""

    layer: Layer
    preconditioner: ActivationKronecker

    def template(self) -> dict[str, Tensor]:
        """Return names, shapes and dtypes of the factors."""
        return self._factors(torch.device("meta"))

    def complete(self, own: MutableMapping[str, Any]) -> None:
        """Make the factors of a layer that has taken no step.

        Raises:
            RuntimeError: when they should be there, but are not.
        """
        if "statistics_weight" in own:
            return
        if own.get("step", 0) > 0:
            raise RuntimeError(
                f"the factors of layer {self.layer.name!r} are not on its owner: owners follow from the "
                "order of groups and the shapes of their layers, which must not change during training; load "
                "a checkpoint after changing them"
            )
        own.update(self._factors())

    def release(self, own: MutableMapping[str, Any]) -> None:
        """Drop the factors."""
        release_factors(own)

    def _factors(self, device: torch.device | None = None) -> dict[str, Tensor]:
        state = layer_state(self.layer, self.preconditioner, device)
        return {name: value for name, value in state.items() if name != "step"}


def release_factors(state: MutableMapping[str, Any]) -> None:
    """Drop what a layer's owner alone keeps."""
    for name in FACTOR_STATE - {"step"}:
        state.pop(name, None)
