"""What a robust matrix function hands back: its value, and where it had to try harder or give up."""

from typing import NamedTuple

import torch
from torch import Tensor

from steepest.linalg.scaling import all_finite


class Robust(NamedTuple):
    """Value of a matrix function for each matrix of a batch, with the record of failures."""

    value: Tensor
    """The result, always finite if the previous value was."""
    retried: Tensor
    """`(...)` bool: the first attempt failed; a later one succeeded or the previous value was kept."""
    kept: Tensor
    """`(...)` bool: every attempt failed and `value` is the previous value."""

    @property
    def fallbacks(self) -> int:
        """Number of matrices whose first attempt failed. Reads from the device."""
        return int(self.retried.sum())


def keep_where_not_finite(value: Tensor, previous: Tensor | None, retried: Tensor) -> Robust:
    """Replace each non-finite matrix of `value` by that of `previous`, or by the identity without one."""
    kept = ~all_finite(value)
    if previous is None:
        previous = torch.eye(value.shape[-1], dtype=value.dtype, device=value.device)
    value = torch.where(kept[..., None, None], previous.to(value.dtype), value)
    return Robust(value, retried | kept, kept)


def check_square(name: str, a: Tensor) -> None:
    """Raise unless `a` is a real floating point tensor of shape `(..., d, d)`."""
    if not a.is_floating_point():
        raise TypeError(f"{name} has dtype {a.dtype}: must be a real floating point tensor")
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ValueError(f"{name} has shape {tuple(a.shape)}: must be (..., d, d)")


def check_same_shape(name: str, b: Tensor | None, a: Tensor) -> None:
    """Raise unless `b` is None or has the shape of `a`."""
    if b is not None and b.shape != a.shape:
        raise ValueError(f"{name} has shape {tuple(b.shape)}: must be {tuple(a.shape)}, the shape of a")
