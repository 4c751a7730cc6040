"""The state of whole rules, which their owners keep."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

from steepest.rule import Rule
from steepest.stepping import BESIDE
from steepest.views import initial_state


def template(rule: Rule, param: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return names, shapes and dtypes of what the owner keeps, on the meta device."""
    state = initial_state(rule, param, group, torch.device("meta"))
    return {name: value for name, value in state.items() if name not in BESIDE}


def complete(
    own: MutableMapping[str, Any], rule: Rule, param: Tensor, group: Mapping[str, Any], label: str
) -> None:
    """Make the state of a parameter on its owner, unless it is there; ``step`` is counted up already.

    Raises:
        RuntimeError: when it should be there, but is not.
    """
    names = template(rule, param, group)
    if all(name in own for name in names):
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
