"""State dicts: what is written, what is refused, and how bits survive the way back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steepest.groups import describe
from steepest.numeric import as_tensor
from steepest.part import Part
from steepest.rule import Rule
from steepest.views import initial_state, step_device

RuleOf = Callable[[Mapping[str, Any]], Rule]


def pack(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Return a state dict whose groups hold plain values only: parts become their printed form."""
    groups = [
        {key: repr(value) if isinstance(value, Part) else value for key, value in group.items()}
        for group in state_dict["param_groups"]
    ]
    return {**state_dict, "param_groups": groups}


def check(
    saved: Mapping[str, Any],
    groups: Sequence[Mapping[str, Any]],
    rule_of: RuleOf,
) -> None:
    """Raise a ``ValueError`` that names the first thing in which a state dict does not fit."""
    if [len(g["params"]) for g in saved["param_groups"]] != [len(g["params"]) for g in groups]:
        return  # torch refuses these
    for i, (old, new) in enumerate(zip(saved["param_groups"], groups, strict=True)):
        for key, value in new.items():
            if isinstance(value, Part) and key in old and old[key] != repr(value):
                raise ValueError(f"group {i} was saved with {key} {old[key]}, this optimizer has {value!r}")
        if old.get("rule", "matrix") != new.get("rule", "matrix"):
            raise ValueError(
                f"group {i} was saved with rule {old.get('rule')!r}, this optimizer has {new.get('rule')!r}"
            )
    for entry in _entries(saved, groups, rule_of):
        expected = entry.template
        if set(entry.state) != set(expected):
            raise ValueError(
                f"the saved state of {entry.label} holds {sorted(entry.state)}, this optimizer keeps "
                f"{sorted(expected)}: the checkpoint is of another optimizer or of other settings"
            )
        for name, value in entry.state.items():
            shape = tuple(as_tensor(value).shape)
            if shape != tuple(expected[name].shape):
                raise ValueError(
                    f"the saved {name!r} of {entry.label} has shape {shape}, "
                    f"expected {tuple(expected[name].shape)}"
                )


def restore(
    saved: Mapping[str, Any],
    groups: Sequence[Mapping[str, Any]],
    rule_of: RuleOf,
    state: MutableMapping[Tensor, Any],
) -> None:
    """Set the state from a state dict that :func:`check` has passed, contiguous and in the engine's dtypes.

    torch casts state to the parameter's dtype on loading, which would cut the float32 state of a bfloat16
    parameter. State saved in a narrower dtype, by another optimizer, is widened.
    """
    for entry in _entries(saved, groups, rule_of):
        state[entry.param] = {
            name: as_tensor(value).to(
                device=step_device(entry.rule, entry.param) if name == "step" else entry.param.device,
                dtype=entry.template[name].dtype,
                copy=True,
                memory_format=torch.contiguous_format,
            )
            for name, value in entry.state.items()
        }


@dataclass(frozen=True)
class _Entry:
    label: str
    param: Tensor
    rule: Rule
    state: Mapping[str, Any]
    template: Mapping[str, Tensor]


def _entries(
    saved: Mapping[str, Any],
    groups: Sequence[Mapping[str, Any]],
    rule_of: RuleOf,
) -> Iterator[_Entry]:
    """Yield every parameter with saved state, beside what its rule would keep under the saved settings."""
    for old, new in zip(saved["param_groups"], groups, strict=False):
        batch_dims = new.get("batch_dims", 0)
        parts = {key: value for key, value in new.items() if isinstance(value, Part)}
        settings = {**new, **old, **parts}
        rule_of_group = rule_of(settings)
        for i, (key, param) in enumerate(zip(old["params"], new["params"], strict=False)):
            if state := saved["state"].get(key):
                rule = rule_of_group.for_shape(param.shape[batch_dims:])
                template = initial_state(rule, param, settings, torch.device("meta"))
                yield _Entry(describe(new, i), param, rule, state, template)
