"""State dicts: what is written, what is refused, and how bits survive the way back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from steepest.rule import Rule


def pack(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Return a state dict whose groups hold plain values only: rules become their printed form."""
    groups = [
        {key: repr(value) if isinstance(value, Rule) else value for key, value in group.items()}
        for group in state_dict["param_groups"]
    ]
    return {**state_dict, "param_groups": groups}


def check_groups(saved: list[Mapping[str, Any]], current: list[Mapping[str, Any]]) -> None:
    """Raise if saved groups belong to another composition."""
    for i, (old, new) in enumerate(zip(saved, current, strict=False)):
        for key, value in new.items():
            if isinstance(value, Rule) and key in old and old[key] != repr(value):
                raise ValueError(f"group {i} was saved with {key} {old[key]}, this optimizer has {value!r}")
        if old.get("rule", "matrix") != new.get("rule", "matrix"):
            raise ValueError(
                f"group {i} was saved with rule {old.get('rule')!r}, this optimizer has {new.get('rule')!r}"
            )


def check_state(label: str, saved: Mapping[str, Any], expected: Mapping[str, Tensor]) -> None:
    """Raise if the saved state of one parameter is not what its rule keeps."""
    if set(saved) != set(expected):
        raise ValueError(
            f"the saved state of {label} holds {sorted(saved)}, this optimizer keeps {sorted(expected)}: "
            "the checkpoint is of another optimizer or of other settings"
        )
    for name, template in expected.items():
        shape = tuple(saved[name].shape) if isinstance(saved[name], Tensor) else ()
        if shape != tuple(template.shape):
            raise ValueError(
                f"the saved {name!r} of {label} has shape {shape}, expected {tuple(template.shape)}"
            )


def restored(value: Any, template: Tensor, device: torch.device) -> Tensor:
    """Return a saved value as own contiguous state, with the dtype it was saved in where that is wide enough.

    torch casts state to the parameter's dtype on loading, which would cut float32 state of a bfloat16
    parameter; state saved in a narrower dtype, by another optimizer, is widened.
    """
    saved = torch.as_tensor(value)
    return saved.to(device=device, dtype=template.dtype, copy=True, memory_format=torch.contiguous_format)
