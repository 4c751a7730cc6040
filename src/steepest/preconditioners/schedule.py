"""Which matrices of a stack are due for new roots or bases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from steepest.background import Background

Timing = Literal["together", "staggered", "background"]
"""Whether all parameters refresh at one step of a cycle, or each at one of its own, or all at one step with
what was computed meanwhile from the statistics of the cycle before."""


def background(state: Mapping[str, Tensor], hypers: Mapping[str, Any]) -> Background:
    """Return what works beside the steps, or without an adapter, at once on the stack itself."""
    return hypers.get("background") or Background([state], state)


def due(hypers: Mapping[str, Any], frequency: int, first: int, like: Tensor) -> Tensor | slice | None:
    """Return the members of a stack ``like`` that refresh in this step as an index, or None.

    All do in the step with count ``first``; later those for which ``frequency`` divides the count less their
    slot, which is 0 unless the adapter hands over ``hypers["slots"]``, one number for each member.
    """
    t, everyone = hypers["step"], slice(None)
    slots = hypers.get("slots")
    if t == first:
        return everyone
    if slots is None:
        return everyone if t % frequency == 0 else None
    members = [i for i, slot in enumerate(slots) if (t - slot) % frequency == 0]
    if len(members) == len(slots):
        return everyone
    return torch.tensor(members, device=like.device) if members else None
