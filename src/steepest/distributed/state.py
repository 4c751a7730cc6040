"""State of distributed parameters: each rank's part beside its part of the weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from steepest import views
from steepest.distributed.layout import local
from steepest.distributed.places import Place, places_of
from steepest.distributed.settings import settings_of
from steepest.stepping import BESIDE


def initial_state(place: Place, param: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state of a parameter before its first step.

    Of what an owner keeps, nothing is here. In blocks, values of another shape than the block's, such as
    factors, are plain tensors of this rank's own.
    """
    weight, layout = local(param), place.layout
    if place.keeps_with_owner:
        everything = views.initial_state(place.rule, param, group, torch.device("meta"))
        own = {
            name: torch.zeros((), dtype=value.dtype, device=views.step_device(place.rule, weight))
            if name == "step"
            else torch.zeros_like(weight, dtype=value.dtype, memory_format=torch.contiguous_format)
            for name, value in everything.items()
            if name in BESIDE
        }
    elif place.way == "block":
        own = views.initial_state(place.rule, weight, group) if weight.numel() else {}
    else:
        own = views.initial_state(place.rule, weight, group)
    return {
        name: value
        if name == "step" or (place.way == "block" and value.shape != weight.shape)
        else layout.wrap(value)
        for name, value in own.items()
    }


def begin(optimizer: Any, group: dict[str, Any], *, anew: bool = False) -> None:
    """Create the missing state of a group's distributed parameters, which checkpoints need early.

    ``anew`` replaces what there is.
    """
    places = places_of([group], {id(group): optimizer._rule(group)}, settings_of(optimizer))
    for param, place in places.items():
        if anew:
            optimizer.state.pop(param, None)
        if param.device.type != "meta" and param.numel() and not optimizer.state[param]:
            optimizer.state[param].update(initial_state(place, param, group))
