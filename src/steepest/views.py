"""Parameters of any shape seen as stacks of matrices (k, m, n).

0-d and 1-d tensors are one row, tensors of more dimensions (size(0), rest); ``batch_dims`` leading dimensions
index separate matrices. Views share memory with contiguous tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Size, Tensor

from steepest.rule import Rule


def stack_shape(shape: Size, batch_dims: int) -> tuple[int, int, int]:
    """Return (k, m, n) for a parameter of this shape."""
    k, one = shape[:batch_dims].numel(), shape[batch_dims:]
    return (k, one[0], one[1:].numel()) if len(one) > 1 else (k, 1, one.numel())


def as_stack(tensor: Tensor, batch_dims: int) -> Tensor:
    """Return a parameter-shaped tensor as (k, m, n)."""
    return tensor.reshape(stack_shape(tensor.shape, batch_dims))


def state_as_stack(value: Tensor, param: Tensor, batch_dims: int) -> Tensor:
    """Return a state tensor of ``param`` with one leading batch dimension."""
    if value.shape == param.shape:
        return as_stack(value, batch_dims)
    return value.reshape(param.shape[:batch_dims].numel(), *value.shape[batch_dims:])


def compute_dtype(param: Tensor) -> torch.dtype:
    """Return the dtype state and arithmetic have: float64 for float64, else float32."""
    return torch.float64 if param.dtype == torch.float64 else torch.float32


def initial_state(
    rule: Rule, param: Tensor, batch_dims: int, device: torch.device | None = None
) -> dict[str, Tensor]:
    """Return the state of ``param`` before its first step.

    ``device`` overrides the parameter's: the meta device gives names and shapes alone.
    """
    shape = stack_shape(param.shape, batch_dims)
    state: dict[str, Tensor] = {}
    if rule.needs_step:
        state["step"] = torch.zeros((), dtype=torch.float32, device=device or step_device(rule, param))
    like = torch.empty(shape, dtype=compute_dtype(param), device=device or param.device)
    for name, value in rule.init(like).items():
        own = param.shape if value.shape == shape else (*param.shape[:batch_dims], *value.shape[1:])
        state[name] = value.reshape(own)
    return state


def step_device(rule: Rule, param: Tensor) -> torch.device:
    """Return where the count of steps lives: beside the parameter, or on the host for scheduled rules."""
    return torch.device("cpu") if rule.scheduled else param.device


def gather(tensors: Sequence[Tensor]) -> Tensor:
    """Return stacks (k_i, ...) as one; a single one is returned as it is, sharing memory."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def scatter(stacked: Mapping[str, Tensor], parts: Sequence[Mapping[str, Tensor]]) -> None:
    """Write a stack of states back to where :func:`gather` took them from."""
    for name, value in stacked.items():
        sizes = [part[name].shape[0] for part in parts]
        torch._foreach_copy_([part[name] for part in parts], list(value.split(sizes)))
