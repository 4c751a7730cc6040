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


def state_as_stack(values: Tensor, shape: Size, batch_dims: int) -> Tensor:
    """Return gathered state of parameters of this ``shape`` with one leading batch dimension."""
    if values.shape[1:] == shape:
        return as_stack(values, batch_dims + 1)
    return values.reshape(values.shape[: batch_dims + 1].numel(), *values.shape[batch_dims + 1 :])


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
    """Return tensors of one shape along a new leading dimension; a single one shares memory."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(list(tensors))


def scatter(stacked: Mapping[str, Tensor], states: Sequence[Mapping[str, Tensor]]) -> None:
    """Write stacked states back to where :func:`gather` took them from."""
    for name, value in stacked.items():
        own = [state[name] for state in states]
        torch._foreach_copy_(own, value.reshape(len(own), *own[0].shape).unbind())
