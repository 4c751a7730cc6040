"""The exponential average of a weight itself, and exchanging the two for evaluation.

With A <- ema A + (1 - ema) W, what is kept as ``average`` is A / (1 - ema^t). For evaluation it stands in
the parameter and the training weight in its place, so that the exchange costs no memory and loses no bit of
the weight.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from torch import Tensor


def update_(param: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]) -> None:
    """Take the weight after step ``hypers["step"]`` into its average."""
    average, ema = state["average"], hypers["ema"]
    share = (1 - ema) / (1 - ema ** hypers["step"])
    average.add_((param.to(average.dtype) - average) * share)


def exchange_(param: Tensor, state: MutableMapping[str, Tensor]) -> None:
    """Exchange the weight and its average; a parameter that never moved has none."""
    if "average" in state:
        average = state["average"]
        weight = param.to(average.dtype, copy=True)
        param.copy_(average)
        average.copy_(weight)
