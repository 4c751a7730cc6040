"""An optimizer chosen by name, checked before there is a model to build it for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from steepest._resolve import load_target


def chosen_class(optimizer: str | type[Optimizer]) -> type[Optimizer]:
    """Return the class that a name, ``"module:Class"`` or the class itself stands for.

    Raises:
        TypeError: it is neither a name nor an optimizer class.
        ValueError: no optimizer has this name; the message has the closest one.
    """
    if isinstance(optimizer, str):
        return load_target(optimizer)
    if isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        return optimizer
    short = type(optimizer).__name__ if isinstance(optimizer, nn.Module) else optimizer
    raise TypeError(f"optimizer must be a name such as 'Muon' or an optimizer class, got {short!r}")


def takes_model(cls: type[Optimizer]) -> bool:
    """Return whether a class is built from the model, not from its parameters, as KFAC is."""
    return hasattr(cls, "remove_hooks")


def built(cls: type[Optimizer], params: Any, hyperparameters: Mapping[str, Any]) -> Optimizer:
    """Return ``cls(params, **hyperparameters)``."""
    build: Any = cls
    return build(params, **hyperparameters)


def rehearse(cls: type[Optimizer], hyperparameters: Mapping[str, Any]) -> Optimizer:
    """Build the optimizer for one small layer, so that a wrong argument is told now and not in training.

    Raises:
        TypeError, ValueError: as the class itself for unknown arguments and bad values.
    """
    layer = nn.Linear(2, 2, device="cpu", dtype=torch.float32)
    rehearsed = built(cls, layer if takes_model(cls) else [layer.weight], hyperparameters)
    if takes_model(cls):
        getattr(rehearsed, "remove_hooks")()  # noqa: B009 - known by that name alone
    return rehearsed
