"""The state of whole rules, which their owners keep."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from steepest.rule import Rule
from steepest.stepping import BESIDE
from steepest.views import initial_state, stack_shape


def template(rule: Rule, param: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return names, shapes and dtypes of what the owner keeps, on the meta device."""
    state = initial_state(rule, param, group, torch.device("meta"))
    return {name: value for name, value in state.items() if name not in BESIDE}


@lru_cache(maxsize=4096)
def _names(rule: Rule, shape: tuple[int, int, int]) -> frozenset[str]:
    """Return the names of what the owner keeps; they are looked for at every step."""
    return frozenset(rule.init(torch.empty(shape, device="meta"))) - {*BESIDE}


def complete(
    own: MutableMapping[str, Any], rule: Rule, param: Tensor, group: Mapping[str, Any], label: str
) -> None:
    """Make the state of a parameter on its owner, unless it is there; ``step`` is counted up already.

    Raises:
        RuntimeError: when it should be there, but is not.
    """
    names = _names(rule, stack_shape(param.shape, group.get("batch_dims", 0)))
    if names <= own.keys():
        return
    if own.get("step", 0) > 1:
        raise RuntimeError(
            f"the state of {label} is not on its owner: owners follow from the order of groups, their shapes "
            "and methods, which must not change during training; load a checkpoint after changing them"
        )
    made = initial_state(rule, param, group, param.device)
    own.update((name, value) for name, value in made.items() if name in names)


def release(own: MutableMapping[str, Any]) -> None:
    """Drop what only the owner keeps."""
    for name in [name for name in own if name not in BESIDE]:
        del own[name]
