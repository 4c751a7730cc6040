"""What is checked of gradients before anything changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from steepest.groups import Member, describe
from steepest.kernels import native

NOT_FINITE = (
    "the gradient of {} is not finite; nothing was changed. "
    "nonfinite='skip' leaves such steps out, nonfinite='propagate' does not look"
)


def check_whole(group: Mapping[str, Any], index: int) -> None:
    """Raise for parameters that FSDP1 has flattened, whose rows and columns are gone."""
    param = group["params"][index]
    if getattr(param, "_is_flat_param", False) or getattr(param, "_fsdp_flattened", False):
        raise ValueError(
            f"{describe(group, index)} was flattened by FullyShardedDataParallel (FSDP1): its matrices are "
            "cut at arbitrary entries, so that no rule of rows, columns or shapes can be applied; shard the "
            "model with torch.distributed.fsdp.fully_shard (FSDP2) instead"
        )


def check_kind(group: Mapping[str, Any], index: int, param: Tensor, grad: Tensor) -> None:
    """Raise if a gradient is of a kind no rule supports."""
    if grad.layout != torch.strided:
        raise RuntimeError(
            f"sparse gradients are not supported: {describe(group, index)} has a {grad.layout} gradient; "
            "use sparse=False in the embedding, or torch.optim.SparseAdam for it"
        )
    if not param.is_floating_point() or not grad.is_floating_point():
        raise RuntimeError(
            f"parameters and gradients must be real floating point: {describe(group, index)} is "
            f"{param.dtype} with a {grad.dtype} gradient; optimize torch.view_as_real of complex parameters"
        )


def all_finite(grads: Sequence[Tensor]) -> bool:
    """Return whether every entry is finite, with one read back per call."""
    return _sums_if_finite(grads) is not None


def _sums_if_finite(
    grads: Sequence[Tensor], asked: Sequence[native.Extents | None] = ()
) -> Sequence[int] | None:
    """Return what a native check leaves for kernels that asked, or None if an entry is not finite.

    Where no native kernel reads a tensor, a sum is the cheapest pass over it and is finite only if every
    entry is; only where it is not, perhaps from overflow, are the entries looked at one by one.
    """
    finite, grads, sums = native.all_finite(grads, asked)
    if not finite:
        return None
    if not grads or bool(torch.stack([g.sum(dtype=torch.float32).cpu() for g in grads]).isfinite().all()):
        return sums
    return sums if all(bool(g.isfinite().all()) for g in grads) else None


def passes(members: Iterable[Member]) -> bool:
    """Apply the groups' ``nonfinite`` policies; return whether the step may go on.

    ``"raise"`` raises a ``FloatingPointError`` that names the parameter, ``"skip"`` asks for the whole step
    to be left out, ``"propagate"`` looks at nothing. By default raise where that costs no device sync.
    """
    looked: list[Member] = []
    for member in members:
        policy = member.group["nonfinite"]
        if policy in ("raise", "skip") or (policy is None and member.grad.is_cpu):
            looked.append(member)
    asked = [member.kind and member.kind.asked for member in looked]
    sums = _sums_if_finite([member.grad for member in looked], asked)
    if sums is not None:
        for member, address in zip(looked, sums, strict=True):
            member.sums = address
        return True
    for member in looked:
        if member.group["nonfinite"] != "skip" and not all_finite([member.grad]):
            raise FloatingPointError(NOT_FINITE.format(describe(member.group, member.index)))
    return False
