"""The exponential average of a weight itself, and exchanging the two for evaluation.

With A <- ema A + (1 - ema) W, what is kept as ``average`` is A / (1 - ema^t). For evaluation it stands in
the parameter and the training weight in its place, so that the exchange costs no memory and loses no bit of
the weight.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor


def update_(param: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]) -> None:
    """Take the weight after step ``hypers["step"]`` into its average."""
    average, ema = state["average"], hypers["ema"]
    share = (1 - ema) / (1 - ema ** hypers["step"])
    average.add_((param.to(average.dtype) - average) * share)


def update_all_(
    params: list[Tensor], states: Sequence[MutableMapping[str, Tensor]], hypers: Mapping[str, Any]
) -> None:
    """Do what :func:`update_` does to each of several parameters that are alike, bit for bit."""
    ema, averages = hypers["ema"], [own["average"] for own in states]
    if len(params) == 1 or isinstance(ema, Tensor) or params[0].dtype != averages[0].dtype:
        for param, own in zip(params, states, strict=True):
            update_(param, own, hypers)
        return
    shares = torch._foreach_sub(params, averages)
    torch._foreach_mul_(shares, (1 - ema) / (1 - ema ** hypers["step"]))
    torch._foreach_add_(averages, shares)


def exchange_(param: Tensor, state: MutableMapping[str, Tensor]) -> None:
    """Exchange the weight and its average; a parameter that never moved has none, or zeros."""
    if "average" in state and state["step"] > 0:
        average = state["average"]
        weight = param.to(average.dtype, copy=True)
        param.copy_(average)
        average.copy_(weight)
