"""What all ranks must know of each other's gradients before any of them changes anything.

One small all-reduce for each mesh, two where a mesh leaves ranks out: which parameters have a gradient, and
which gradients are not finite where somebody wants to know. Ranks that differ raise together, with the
parameter's name; none is left waiting in a collective that the others never reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from steepest.distributed.collectives import all_reduce, control_device, size_of
from steepest.distributed.layout import local
from steepest.distributed.places import Place
from steepest.groups import describe
from steepest.screening import NOT_FINITE, all_finite

GO_ON, SKIP, NOT_FINITE_HERE, DIFFERENT = range(4)


@dataclass
class _Lane:
    """The parameters whose ranks are those of one process group."""

    group: ProcessGroup
    device: str
    members: list[tuple[Mapping[str, Any], int, Tensor]] = field(default_factory=list)
    needed: bool = False


def agree(
    groups: Sequence[Mapping[str, Any]], places: Mapping[Tensor, Place], plain_verdict: int = GO_ON
) -> bool:
    """Return whether the step may go on; every rank returns or raises the same.

    ``plain_verdict`` is what this rank found among parameters that are not distributed.

    Raises:
        RuntimeError: if a parameter has a gradient on some ranks of its mesh only.
        FloatingPointError: for gradients that are not finite under ``nonfinite="raise"``.
    """
    lanes = [lane for lane in _lanes(groups, places) if lane.needed]
    verdict, message = plain_verdict, ""
    for lane in _there_and_back(lanes):
        found, told = _look(lane, verdict)
        if found > verdict:
            verdict, message = found, told
    if verdict == DIFFERENT:
        raise RuntimeError(f"{message}; nothing was changed")
    if verdict == NOT_FINITE_HERE:
        raise FloatingPointError(message or NOT_FINITE.format("a parameter of another rank"))
    return verdict == GO_ON


def _lanes(groups: Sequence[Mapping[str, Any]], places: Mapping[Tensor, Place]) -> list[_Lane]:
    lanes: dict[ProcessGroup, _Lane] = {}
    for group in groups:
        for i, param in enumerate(group["params"]):
            place = places.get(param)
            if place is None or not param.numel():
                continue
            lane = lanes.get(place.layout.group)
            if lane is None:
                lane = lanes[place.layout.group] = _Lane(place.layout.group, local(param).device.type)
            lane.members.append((group, i, param))
            lane.needed |= place.communicates or _policy(group, param) != "propagate"
    return list(lanes.values())


def _there_and_back(lanes: Sequence[_Lane]) -> list[_Lane]:
    """Return the order in which verdicts are exchanged, so that each reaches all that share any ranks.

    Ranks may hold parameters on meshes that others are no part of. How often a group is asked must then
    follow from the group alone: the whole world once, any other before and after it.
    """
    world = dist.get_world_size()
    some = [lane for lane in lanes if size_of(lane.group) < world]
    return [*some, *(lane for lane in lanes if size_of(lane.group) == world), *some[::-1]]


def _look(lane: _Lane, verdict: int) -> tuple[int, str]:
    """Return the verdict of all ranks, with ``verdict`` this rank's so far, and the words for it."""
    ranks, count = size_of(lane.group), len(lane.members)
    votes = [verdict == choice for choice in range(DIFFERENT + 1)]
    facts = torch.tensor(
        [*(param.grad is not None for _, _, param in lane.members), *_not_finite(lane), *votes],
        dtype=torch.int32,
        device=control_device(lane.group, lane.device),
    )
    told = all_reduce(facts, (lane.group,), "agreement").tolist()
    have, bad, votes = told[:count], told[count : 2 * count], told[2 * count :]
    for (group, i, _), holders in zip(lane.members, have, strict=True):
        if holders not in (0, ranks):
            return DIFFERENT, (
                f"{describe(group, i)} has a gradient on {holders} of {ranks} ranks: every rank must use the "
                "same parameters in a step"
            )
    verdict = max(choice for choice, voters in enumerate(votes) if voters)
    message = "ranks of another mesh have different gradients" if verdict == DIFFERENT else ""
    for (group, i, param), ranks_bad in zip(lane.members, bad, strict=True):
        if ranks_bad and _policy(group, param) == "raise" and verdict < DIFFERENT:
            return NOT_FINITE_HERE, NOT_FINITE.format(describe(group, i))
        if ranks_bad:
            verdict = max(verdict, SKIP)
    return verdict, message


def _not_finite(lane: _Lane) -> list[bool]:
    """Return which parameters have a gradient here that must be finite and is not."""
    looked = [
        local(param.grad) if param.grad is not None and _policy(group, param) != "propagate" else None
        for group, _, param in lane.members
    ]
    if all_finite([grad for grad in looked if grad is not None]):
        return [False] * len(looked)
    return [grad is not None and not all_finite([grad]) for grad in looked]


def _policy(group: Mapping[str, Any], param: Tensor) -> str:
    """Return a group's policy for gradients that are not finite; see :func:`steepest.screening.passes`."""
    return group["nonfinite"] or ("raise" if param.device.type == "cpu" else "propagate")
