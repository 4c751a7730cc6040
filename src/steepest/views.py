"""Parameters of any shape seen as stacks of matrices (k, m, n).

0-d and 1-d tensors are one row, tensors of more dimensions (size(0), rest); ``batch_dims`` leading dimensions
index separate matrices. Views share memory with contiguous tensors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Size, Tensor

from steepest.rounding import compute_dtype, needs_rounding, store_stochastically_
from steepest.rule import Rule


def stack_shape(shape: Size, batch_dims: int) -> tuple[int, int, int]:
    """Return (k, m, n) for a parameter of this shape."""
    k, one = shape[:batch_dims].numel(), shape[batch_dims:]
    return (k, one[0], one[1:].numel()) if len(one) > 1 else (k, 1, one.numel())


def as_stack(tensor: Tensor, batch_dims: int) -> Tensor:
    """Return a parameter-shaped tensor as (k, m, n)."""
    return tensor.reshape(stack_shape(tensor.shape, batch_dims))


def state_as_stack(values: Tensor, shape: Size, batch_dims: int) -> Tensor:
    """Return gathered state of parameters of this ``shape`` with one leading batch dimension."""
    if values.shape[1:] == shape:
        return as_stack(values, batch_dims + 1)
    return values.reshape(values.shape[: batch_dims + 1].numel(), *values.shape[batch_dims + 1 :])


def initial_state(
    rule: Rule, param: Tensor, group: Mapping[str, Any], device: torch.device | None = None
) -> dict[str, Tensor]:
    """Return the state of ``param`` before its first step, stored as its group says.

    ``device`` overrides the parameter's: the meta device gives names and shapes alone.
    """
    batch_dims = group.get("batch_dims", 0)
    shape = stack_shape(param.shape, batch_dims)
    rounds, narrow = needs_rounding(param, group), narrow_names(rule, param, group)
    state: dict[str, Tensor] = {}
    if rule.needs_step or ((rounds or narrow) and group.get("rounding") == "stochastic"):
        state["step"] = torch.zeros((), dtype=torch.float32, device=device or step_device(rule, param))
    like = torch.empty(shape, dtype=compute_dtype(param), device=device or param.device)
    for name, value in rule.init(like).items():
        own = param.shape if value.shape == shape else (*param.shape[:batch_dims], *value.shape[1:])
        state[name] = value.reshape(own)
        if name in narrow:
            state[name] = state[name].to(group["momentum_dtype"])
    if rounds and group["rounding"] == "kahan":
        state["compensation"] = torch.zeros(param.shape, dtype=param.dtype, device=device or param.device)
    return state


def narrow_names(rule: Rule, param: Tensor, group: Mapping[str, Any]) -> Collection[str]:
    """Return the names of momentum buffers that the group keeps in another dtype than the arithmetic."""
    if group.get("momentum_dtype") is None or compute_dtype(param) == torch.float64:
        return ()
    return rule.momentum.init(torch.empty(1, 1, 1, device="meta")).keys()


def step_device(rule: Rule, param: Tensor) -> torch.device:
    """Return where the count of steps lives: beside the parameter, or on the host for scheduled rules."""
    return torch.device("cpu") if rule.scheduled else param.device


def gather(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors of one shape along a new leading dimension; a single one shares memory."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(list(tensors))


def scatter(
    stacked: Mapping[str, Tensor], states: Sequence[Mapping[str, Tensor]], *, stochastic: bool = False
) -> None:
    """Write stacked states back to where :func:`gather` took them from, ``stochastic`` rounding bfloat16."""
    for name, value in stacked.items():
        own = [state[name] for state in states]
        values = value.reshape(len(own), *own[0].shape).unbind()
        if stochastic and own[0].dtype == torch.bfloat16:
            for state, buffer, new in zip(states, own, values, strict=True):
                store_stochastically_(buffer, new, state["step"])
        else:
            torch._foreach_copy_(own, values)
