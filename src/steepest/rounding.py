"""How a weight of few bits takes a step that was computed in float32.

``"nearest"`` rounds once to the nearest value; a step below half a unit of the last bit is lost.
``"stochastic"`` rounds up or down with probabilities that make the rounding right on average, for bfloat16.
``"kahan"`` keeps what rounding cut off as ``compensation`` and adds it before the next step: weight and
compensation together carry twice the bits.

Random bits are a hash of the entry's index and the step count, so that runs repeat and resume exactly
without a random generator, and every path can compute them.

Sources: Zamirai et al., Revisiting BFloat16 Training, arXiv 2010.06192 (stochastic rounding and Kahan
summation of weights); the mixing function is the 32-bit finaliser of MurmurHash3 (Appleby).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

Rounding = Literal["nearest", "stochastic", "kahan"]
ROUNDINGS = get_args(Rounding)


class Weight(Protocol):
    """A weight that is read and written in the dtype of the arithmetic."""

    def read(self, param: Tensor) -> Tensor:
        """Return the weight in that dtype; the parameter itself where it has it."""
        ...

    def write(self, param: Tensor, weight: Tensor) -> None:
        """Store what :meth:`read` returned, changed in place."""
        ...


class Nearest:
    """Rounded to the nearest."""

    def read(self, param: Tensor) -> Tensor:
        """Return float32 of a narrower parameter."""
        return param if param.dtype == compute_dtype(param) else param.float()

    def write(self, param: Tensor, weight: Tensor) -> None:
        """Round and store."""
        if weight is not param:
            param.copy_(weight)


class Stochastic(Nearest):
    """Rounded at random, by the count of steps ``step``."""

    def __init__(self, step: Tensor) -> None:
        self.step = step

    def write(self, param: Tensor, weight: Tensor) -> None:
        """Round and store."""
        store_stochastically_(param, weight, self.step)


class Kahan:
    """Stored together with what rounding cuts off."""

    def __init__(self, compensation: Tensor) -> None:
        self.compensation = compensation

    def read(self, param: Tensor) -> Tensor:
        """Return weight plus compensation in float32."""
        return param.float().add_(self.compensation)

    def write(self, param: Tensor, weight: Tensor) -> None:
        """Split and store."""
        param.copy_(weight)
        rest = weight - param
        self.compensation.copy_(torch.where(rest.isfinite(), rest, 0.0))


NEAREST = Nearest()


def weight_of(param: Tensor, state: Mapping[str, Tensor], group: Mapping[str, Any]) -> Weight:
    """Return how a parameter's weight is read and written under its group's ``rounding``."""
    if not needs_rounding(param, group):
        return NEAREST
    if group["rounding"] == "kahan":
        return Kahan(state["compensation"])
    return Stochastic(state["step"])


def needs_rounding(param: Tensor, group: Mapping[str, Any]) -> bool:
    """Return whether a parameter has fewer bits than the arithmetic, and its group other than nearest."""
    return group.get("rounding", "nearest") != "nearest" and param.dtype != compute_dtype(param)


def compute_dtype(param: Tensor) -> torch.dtype:
    """Return the dtype state and arithmetic have: float64 for float64, else float32."""
    return torch.float64 if param.dtype == torch.float64 else torch.float32


def store_stochastically_(target: Tensor, value: Tensor, step: Tensor) -> None:
    """Set bfloat16 ``target`` to float32 ``value``, rounded up with probability of the part cut off."""
    bits = value.contiguous().view(torch.int32)
    cut = (bits + random_bits(value, step).bitwise_and_(0xFFFF)).bitwise_and_(-0x10000)
    target.copy_(torch.where(value.isfinite(), cut.view(torch.float32), value))


def random_bits(like: Tensor, step: Tensor) -> Tensor:
    """Return an int32 hash of every entry's index and the step count."""
    index = torch.arange(like.numel(), device=like.device).to(torch.int32).reshape(like.shape)
    h = (index * _signed(0x9E3779B1)).bitwise_xor_(step.to(like.device, torch.int32) * _signed(0x85EBCA77))
    h.bitwise_xor_(_shifted(h, 16)).mul_(_signed(0x85EBCA6B))
    h.bitwise_xor_(_shifted(h, 13)).mul_(_signed(0xC2B2AE35))
    return h.bitwise_xor_(_shifted(h, 16))


def _shifted(h: Tensor, bits: int) -> Tensor:
    """Return the logical shift to the right; torch's keeps the sign."""
    return (h >> bits).bitwise_and_((1 << (32 - bits)) - 1)


def _signed(word: int) -> int:
    return word - (1 << 32) if word >= 1 << 31 else word
