"""Which parameter gets which rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

SHARED_KEYS = (
    "weight_decay",
    "maximize",
    "fused",
    "nonfinite",
    "rounding",
    "momentum_dtype",
    "batch_dims",
)
"""Keys of a group that mean the same for both rules, so that they reach both halves of a split group."""


@dataclass(slots=True)
class Member:
    """A parameter with a gradient, and where it stands."""

    group: dict[str, Any]
    index: int
    param: Tensor
    grad: Tensor
    kind: Any = None
    """What parameters like this one have in common, a :class:`steepest.kinds.Kind`."""
    sums: int = 0
    """Where the check of gradients has left sums of squares that its kernel asked for."""


def is_matrix(param: Tensor, batch_dims: int) -> bool:
    """Return whether a parameter is a matrix once batch dimensions are set aside."""
    return param.ndim - batch_dims >= 2


def split(
    group: Mapping[str, Any],
    aux_options: Mapping[str, Any],
    matrix_keys: Iterable[str],
    matrix_only: bool = True,
) -> list[dict[str, Any]]:
    """Return a hybrid's group as at most two: matrices with ``rule="matrix"``, the rest with ``rule="aux"``.

    A group that names its ``rule`` is kept whole. What a group without one says of its hyperparameters is
    meant for the matrix rule, except the keys in ``SHARED_KEYS``. Without ``matrix_only`` the first rule
    takes every shape, and only a group with ``rule="aux"`` goes to the other.
    """
    matrix_keys = set(matrix_keys)
    rule = group.get("rule")
    if rule == "aux":
        return [{**aux_options, **group}]
    entries = entries_of(group["params"])
    batch_dims = group.get("batch_dims", 0)
    taken = [not matrix_only or is_matrix(tensor_of(entry), batch_dims) for entry in entries]
    others = [entry for entry, yes in zip(entries, taken, strict=True) if not yes]
    if rule == "matrix":
        if others:
            raise ValueError(
                f"rule='matrix' needs parameters of two or more dimensions, got one of shape "
                f"{tuple(tensor_of(others[0]).shape)}; leave 'rule' out or give it rule='aux'"
            )
        return [dict(group)]
    matrices = [entry for entry, yes in zip(entries, taken, strict=True) if yes]
    parts: list[dict[str, Any]] = []
    if matrices or not others:
        parts.append({**group, "params": matrices, "rule": "matrix"})
    if others:
        kept = {k: v for k, v in group.items() if k in SHARED_KEYS or k not in matrix_keys}
        parts.append({**aux_options, **kept, "params": others, "rule": "aux"})
    return parts


def entries_of(params: Any) -> list[Any]:
    """Return what a group holds as a list of tensors or (name, tensor) pairs."""
    if isinstance(params, Tensor):
        return [params]
    if isinstance(params, set):
        raise TypeError("optimizer parameters need to be organized in ordered collections, got a set")
    return list(params)


def tensor_of(entry: Any) -> Tensor:
    """Return the tensor of an entry of a group."""
    tensor = entry[1] if isinstance(entry, tuple) and len(entry) == 2 else entry
    if not isinstance(tensor, Tensor):
        raise TypeError(f"params must hold tensors or (name, tensor) pairs, got {type(tensor).__name__}")
    return tensor


def describe(group: Mapping[str, Any], index: int) -> str:
    """Return how to name a group's parameter in a message."""
    shape = tuple(group["params"][index].shape)
    names = group.get("param_names")
    return f"parameter {names[index]!r} of shape {shape}" if names else f"parameter {index} of shape {shape}"
