"""How an optimizer works on several processes, where there is a choice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.distributed import ProcessGroup


@dataclass(frozen=True)
class Settings:
    """The choices of one optimizer; see :func:`configure` and :func:`split_work`."""

    blocks: bool = False
    traffic: torch.dtype | None = None
    replicas: ProcessGroup | None = None

    def portable(self) -> Settings:
        """Return what copies and pickles carry: all but the process group."""
        return replace(self, replicas=None)


DEFAULT = Settings()
TRAFFIC = (None, torch.bfloat16, torch.float16, torch.float32)


def settings_of(optimizer: Any) -> Settings:
    """Return an optimizer's settings."""
    return getattr(optimizer, "_sharding", None) or DEFAULT
