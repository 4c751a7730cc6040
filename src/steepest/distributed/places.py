"""Where each parameter's rule is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from steepest.distributed.layout import Layout, layout_of, local, replicated
from steepest.distributed.local import elementwise, supports
from steepest.distributed.ownership import kind
from steepest.distributed.settings import Settings
from steepest.kernels import Kernel, fused_kernel
from steepest.rule import Rule

Way = Literal["alone", "block", "summed", "owned"]
"""On this rank alone, entry by entry or with whole matrices; on this rank's block as if it were a matrix; on
the shards, with sums over ranks; on the matrix's owner."""


@dataclass(frozen=True)
class Place:
    """A distributed parameter's rule, layout, and where the one meets the other."""

    rule: Rule
    """For the shape of one whole matrix, or in blocks for that of this rank's block."""
    layout: Layout
    way: Way

    @property
    def keeps_with_owner(self) -> bool:
        """Whether the rule's state is on the owner."""
        return self.way == "owned" and kind(self.rule) == "whole"

    @property
    def communicates(self) -> bool:
        """Whether the step makes collectives."""
        return self.way in ("summed", "owned") or (
            self.rule.step.whole_network and bool(self.layout.shard_groups)
        )


def owned_by(places: Mapping[Tensor, Place]) -> Callable[..., tuple[Rule, Layout] | None]:
    """Return a function of a group and its parameter: rule and layout of one with an owner, or None."""

    def owned(group: Mapping[str, Any], param: Tensor) -> tuple[Rule, Layout] | None:
        place = places.get(param)
        return (place.rule, place.layout) if place is not None and place.way == "owned" else None

    return owned


def places_of(
    groups: Iterable[Mapping[str, Any]], rules: Mapping[int, Rule], settings: Settings
) -> dict[Tensor, Place]:
    """Return the place of every distributed parameter; ``rules`` are found by the group's id."""
    found: dict[Tensor, Place] = {}
    known: dict[object, Place | None] = {}
    for group in groups:
        batch_dims = group.get("batch_dims", 0)
        for param in group["params"]:
            key: tuple[object, ...] = (id(group), param.shape)
            if isinstance(param, DTensor):
                key = (*key, id(param.device_mesh), param.placements)
            if key not in known:
                known[key] = place_of(param, rules[id(group)], batch_dims, settings)
            if (place := known[key]) is not None:
                found[param] = place
    return found


def place_of(param: Tensor, rule: Rule, batch_dims: int, settings: Settings) -> Place | None:
    """Return the place of a parameter under its group's rule, None for one that is not distributed."""
    layout = layout_of(param, batch_dims)
    shaped = rule.for_shape(param.shape[batch_dims:])
    if layout is None:
        if settings.replicas is None or not param.numel():
            return None
        layout = replicated(param.shape, batch_dims, settings.replicas)
        # What costs no more than a pass over the entries is cheaper than its traffic.
        return None if supports(shaped, layout) else Place(shaped, layout, "owned")
    if not layout.cuts_matrices:
        return Place(shaped, layout, "alone")
    if settings.blocks:
        return Place(rule.for_shape(local(param).shape[batch_dims:]), layout, "block")
    if elementwise(shaped):
        return Place(shaped, layout, "alone")
    return Place(shaped, layout, "summed" if supports(shaped, layout) else "owned")


def kernel_of(rule: Rule, param: Tensor, group: Mapping[str, Any], settings: Settings) -> Kernel | None:
    """Return the fused path for this rank's part of a parameter, None where other ranks have a part in it."""
    place = place_of(param, rule, group.get("batch_dims", 0), settings)
    if place is not None and place.way in ("summed", "owned"):
        return None
    with torch.no_grad():
        return fused_kernel(rule if place is None else place.rule, local(param), group)
