"""What parameters alike have in common, found once: rule, kernel, how many of them one call serves.

Parameters of one group, shape and type are of one kind. Kinds hold no tensors and no numbers that a scheduler
may change, and are kept from step to step, since finding a kernel takes longer than a small step.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from steepest.groups import Member
from steepest.kernels import Kernel, fused_kernel
from steepest.kernels.native import Extents, NativeKernel
from steepest.rule import Rule

SMALL = 2**14
"""Up to this many entries, calling an operation costs more than copying what it works on."""
NAMES = ("fused", "maximize", "rounding", "momentum_dtype", "batch_dims", "betas", "eps")
"""What a kind depends on in a group, beside its rule."""
KEPT = 256
"""Of how many groups kinds are kept."""
CACHED = 2**17
"""Entries for each thread of a CPU beyond which copying a stack and its state costs more than it gains."""


@dataclass(frozen=True, eq=False)
class Kind:
    """What parameters alike have in common."""

    rule: Rule
    kernel: Kernel | None
    most: int
    """How many of them one call serves."""
    asked: Extents | None
    """As which matrices a check of their gradients should sum squares, for the kernel to begin with."""


_kinds: dict[Hashable, dict[Hashable, Kind]] = {}


def with_kinds(members: Iterable[Member], rules: Mapping[int, Rule]) -> list[Member]:
    """Return the members, with a kind each; this changes nothing else."""
    members = list(members)
    if len(_kinds) > KEPT:
        _kinds.clear()
    threads = torch.get_num_threads()
    group: dict[str, Any] = {}
    known: dict[Hashable, Kind] = {}
    for member in members:
        if member.kind is not None:
            continue
        param, grad = member.param, member.grad
        if group is not member.group:
            group = member.group
            known = _known(group, rules[id(group)], threads)
        alike = (param.shape, param.dtype, grad.dtype, param.device, param.is_contiguous(), type(param))
        kind = known.get(alike)
        if kind is None:
            kind = known[alike] = _kind(group, param, grad, rules[id(group)])
        member.kind = kind
    return members


def _known(group: Mapping[str, Any], rule: Rule, threads: int) -> dict[Hashable, Kind]:
    """Return the kinds there are of a group like this; none are kept that depend on the values of tensors."""
    values = [group.get(name) for name in NAMES]
    values = [tuple(value) if isinstance(value, (tuple, list)) else (value,) for value in values]
    if any(isinstance(number, Tensor) for value in values for number in value):
        return {}
    return _kinds.setdefault((rule, threads, *values), {})


def _kind(group: dict[str, Any], param: Tensor, grad: Tensor, rule: Rule) -> Kind:
    rule = rule.for_shape(param.shape[group.get("batch_dims", 0) :])
    kernel = None if group["fused"] is False else fused_kernel(rule, param, group)
    if kernel is None:
        return Kind(rule, None, _most(rule, param), None)
    asked = kernel.asks(param, grad) if isinstance(kernel, NativeKernel) else None
    return Kind(rule, kernel, sys.maxsize, asked)


def _most(rule: Rule, param: Tensor) -> int:
    """Return how many parameters like this one are cheapest in one stack."""
    if param.device.type == "cpu" and param.numel() > SMALL:
        # Stacks of large factors of preconditioners are copied at a loss; matrix products gain from a stack
        # while there is one for each thread.
        return max(1, CACHED * torch.get_num_threads() // param.numel()) if rule.norm.batches else 1
    alike = rule.batches or (param.numel() <= SMALL and type(param) in (Parameter, Tensor))
    return sys.maxsize if alike else 1
