"""Matrices side by side in one parameter, stepped one by one.

A group's ``split_sizes`` cut each matrix of its parameters along the rows (``split_dim=0``) or columns (1).
The parts are views of parameter, gradient and state, so that state keeps the parameter's shape and names.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import torch
from torch import Size, Tensor

from steepest.groups import Member, describe
from steepest.rule import Rule
from steepest.views import initial_state

State = MutableMapping[Tensor, dict[str, Any]]
OBLONG = Size((3, 5))
"""A shape whose factors cannot be mistaken for it."""


def cut(group: Mapping[str, Any]) -> bool:
    """Return whether a group's parameters are stepped in parts; AdamW's steps would not change."""
    return bool(group.get("split_sizes")) and group.get("rule") != "aux"


def in_pieces(
    members: Iterable[Member], rules: Mapping[int, Rule], state: State
) -> tuple[Iterable[Member], State]:
    """Return members, those of cut groups replaced by their parts, and where the state of all is found."""
    members = list(members)
    if not any(map(cut, {id(member.group): member.group for member in members}.values())):
        return members, state
    parts: dict[Tensor, dict[str, Any]] = {}
    result: list[Member] = []
    for member in members:
        if not cut(member.group):
            result.append(member)
            continue
        group, param = member.group, member.param
        own = state[param]
        if not own:
            rule = rules[id(group)].for_shape(param.shape[group.get("batch_dims", 0) :])
            own.update(initial_state(rule, param, group))
        for i, (piece, grad) in enumerate(zip(_cut(param, group), _cut(member.grad, group), strict=True)):
            result.append(Member(group, member.index, piece, grad))
            parts[piece] = {name: _cut(x, group)[i] for name, x in own.items() if x.shape == param.shape}
            # The first part counts the parameter's own steps, the others count along.
            parts[piece] |= {name: x if i == 0 else x.clone() for name, x in own.items() if not x.ndim}
    return result, ChainMap(parts, state)


def _cut(tensor: Tensor, group: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Return the parts of a parameter-shaped tensor, sharing its memory."""
    dim = group.get("batch_dims", 0) + group.get("split_dim", 0)
    return tensor.detach().split(list(group["split_sizes"]), dim)


def check(group: Mapping[str, Any], index: int, rule: Rule) -> None:
    """Raise a ``ValueError`` if a parameter cannot be cut as its group says."""
    if not cut(group):
        return
    param, batch_dims, dim = group["params"][index], group.get("batch_dims", 0), group.get("split_dim", 0)
    sizes = list(group["split_sizes"])
    if param.ndim - batch_dims < 2:
        raise ValueError(f"split_sizes={sizes} needs a matrix, got {describe(group, index)}")
    side = param.shape[batch_dims + dim]
    if sum(sizes) != side:
        raise ValueError(
            f"split_sizes={sizes} must sum to the {('rows', 'columns')[dim]} of {describe(group, index)}, "
            f"{side}, got {sum(sizes)}"
        )
    kept = rule.for_shape(OBLONG).init(torch.empty(1, *OBLONG, device="meta"))
    if any(value.shape[1:] != OBLONG for value in kept.values()):
        raise ValueError(
            f"split_sizes={sizes} needs a method whose state has the parameter's shape, such as Muon, MuAdam "
            f"or ANDI; {type(rule.preconditioner).__name__} keeps factors of the whole matrix"
        )


def refuse(groups: Iterable[Mapping[str, Any]]) -> None:
    """Raise a ``ValueError`` for cut groups where parameters live on several ranks."""
    for group in groups:
        if cut(group):
            raise ValueError(
                f"split_sizes={list(group['split_sizes'])} is for parameters that are whole on every rank, "
                "not for sharded ones or work split over replicas; leave it out"
            )
