"""What is checked of gradients before anything changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from steepest.groups import describe


def check_kind(group: Mapping[str, Any], index: int) -> None:
    """Raise if a gradient is of a kind no rule supports."""
    param = group["params"][index]
    grad = param.grad
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


def policy(group: Mapping[str, Any], grad: Tensor) -> str:
    """Return the policy for non-finite gradients; by default raise where that costs no device sync."""
    chosen = group["nonfinite"]
    return chosen or ("raise" if grad.device.type == "cpu" else "propagate")


def all_finite(grads: Iterable[Tensor]) -> bool:
    """Return whether every entry is finite, with one read back per call.

    A sum is the cheapest pass over a tensor and is finite only if every entry is; only where it is not,
    perhaps from overflow, are the entries looked at one by one.
    """
    grads = list(grads)
    if not grads or bool(torch.stack([g.sum(dtype=torch.float32).cpu() for g in grads]).isfinite().all()):
        return True
    return all(bool(g.isfinite().all()) for g in grads)


def passes(members: Iterable[tuple[Mapping[str, Any], int]]) -> bool:
    """Apply the groups' ``nonfinite`` policies; return whether the step may go on.

    ``"raise"`` raises a ``FloatingPointError`` that names the parameter, ``"skip"`` asks for the whole step
    to be left out, ``"propagate"`` looks at nothing.
    """
    by_policy: dict[str, list[tuple[Mapping[str, Any], int]]] = {"raise": [], "skip": [], "propagate": []}
    for group, index in members:
        by_policy[policy(group, group["params"][index].grad)].append((group, index))
    strict = by_policy["raise"]
    if not all_finite(group["params"][index].grad for group, index in strict):
        group, index = next(
            (group, index) for group, index in strict if not all_finite([group["params"][index].grad])
        )
        raise FloatingPointError(
            f"the gradient of {describe(group, index)} is not finite; nothing was changed. "
            "nonfinite='skip' leaves such steps out, nonfinite='propagate' does not look"
        )
    return all_finite(group["params"][index].grad for group, index in by_policy["skip"])
