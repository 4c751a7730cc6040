"""The layers of a whole network in one step, on this process or on several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steepest.preconditioners.kfac.direction import LayerStep, started
from steepest.preconditioners.kfac.factors import kl_factor, squared_length
from steepest.preconditioners.kfac.hooks import LayerWatch, require_one_process
from steepest.preconditioners.kfac.layers import Layer, is_sharded


@dataclass
class Direction:
    """The direction of one parameter, and the gradient it replaces; of several ranks, this one's parts."""

    param: Tensor
    grad: Tensor
    direction: Tensor
    layout: Any
    """How the parameter lies on several ranks, or None."""


def precondition(
    steps: Sequence[LayerStep],
    placed: Mapping[Layer, Any],
    watch: LayerWatch,
    traffic: torch.dtype | None = None,
) -> list[Direction]:
    """Return a direction for every gradient of these layers, of which several ranks hold the ``placed`` ones.

    All ranks of a layer must pass it.

    Raises:
        RuntimeError: before anything changes, for a layer that was not seen at its first step, and for one
            that is not ``placed`` where there are several processes.
    """
    alone = [step for step in steps if step.layer not in placed]
    if alone:
        require_one_process()
    for step in alone:
        if not started(step.state):
            watch.require(step.layer)
    found: dict[int, Tensor] = {}
    layouts: dict[int, Any] = {}
    if placed:
        from steepest.distributed.kfac import directions, layouts_of

        layouts = layouts_of(placed)
        together = [(placed[step.layer], step) for step in steps if step.layer in placed]
        found = directions(together, watch, traffic)
    for step in alone:
        parts = step.directions(step.grads, watch.means(step.layer))
        found.update((id(p), u) for p, u in zip(step.layer.parameters, parts, strict=True))
    return [
        Direction(p, g, found[id(p)], layouts.get(id(p)))
        for step in steps
        for p, g in zip(step.layer.parameters, step.grads, strict=True)
        if g is not None
    ]


def clip_factor(directions: Sequence[Direction], rates: Sequence[Any], kl_clip: Any) -> Tensor:
    """Return the factor that bounds a step with these learning rates; the same on all ranks."""
    parts = [(lr, one.direction, one.grad) for lr, one in zip(rates, directions, strict=True)]
    if all(one.layout is None for one in directions):
        return kl_factor(squared_length(parts), kl_clip)
    from steepest.distributed.kfac import total_length

    return kl_factor(total_length(parts, [one.layout for one in directions]), kl_clip)


def local_gradient(param: Tensor, grad: Tensor, label: str) -> Tensor:
    """Return a gradient, or of a DTensor's this rank's part, which shares its memory if placed alike.

    Raises:
        RuntimeError: for a plain gradient of a DTensor, which ``label`` names.
    """
    if not is_sharded(param):
        return grad
    from steepest.distributed.layout import local_gradient

    return local_gradient(param, grad, label)
