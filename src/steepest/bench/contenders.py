"""What is measured: a row of a table, its family, and how it is built for a set.

Matrix methods get the same work wherever they come from: they train the hidden matrices, convolutions read
as (size(0), rest), and an AdamW trains embeddings, heads and vectors. Peers that do not route get torch's
fused AdamW for these, the fastest there is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from steepest.bench.sets import Parameters, ParameterSet

FAMILIES = {
    "elementwise": (
        "ANDI",
        "AdamW",
        "Adam",
        "Adagrad",
        "AdamSANIA",
        "MADGRAD",
        "NormalizedSGD",
        "SignSGD",
    ),
    "spectral": ("Muon", "MuAdam", "MuAdamSANIA", "Scion", "ClippedScion"),
    "soap": ("SOAP",),
    "shampoo": ("Shampoo", "OneSidedShampoo"),
    "kl": ("KLShampoo", "KLSOAP"),
    "splus": ("SPlus",),
}
"""Methods by table: what is compared is in one, and what is in one fits into memory together."""
KRONECKER = ("soap", "shampoo", "kl", "splus")
"""Families with eigensolvers and a refresh every so many steps."""
REFERENCE = "torch AdamW fused"
REFRESH = 10
"""Steps from refresh to refresh of every Kronecker method and its peers."""
LONGEST_SIDE = 2048
"""A longer side is not preconditioned by Kronecker methods that have such a limit."""
RATE = 1e-4
"""Learning rate of all: too small for weights to go anywhere in the steps of a measurement."""


class BenchError(Exception):
    """A measurement cannot start; the message is one line."""


class Stepper(Protocol):
    """What is timed."""

    def step(self) -> Any:
        """Take a step."""

    def states(self) -> list[Any]:
        """Return the state, for counting its bytes."""
        ...


class Together:
    """One optimizer, or several that share a model, as one step."""

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self._optimizers = [o for o in optimizers if any(group["params"] for group in o.param_groups)]

    def step(self) -> None:
        """Take a step of each."""
        for optimizer in self._optimizers:
            optimizer.step()

    def states(self) -> list[Any]:
        """Return the state of each."""
        return [dict(optimizer.state) for optimizer in self._optimizers]


@dataclass(frozen=True)
class Contender:
    """One row: ``cycle`` is the steps from refresh to refresh, ``flat`` asks for convolutions as matrices.

    ``unlimited`` says that it preconditions sides of any length, where others stop at ``LONGEST_SIDE``.
    """

    name: str
    library: str
    method: str
    build: Callable[[Parameters], Stepper]
    cycle: int = 1
    flat: bool = False
    note: str = ""
    unlimited: bool = False

    @property
    def family(self) -> str:
        """The family of its method; methods of torch alone are elementwise."""
        return next((family for family, names in FAMILIES.items() if self.method in names), "elementwise")

    def obstacle(self, shapes: ParameterSet) -> str | None:
        """Return why it is not measured on these shapes, or None."""
        sides = [max(s[0], math.prod(s[1:])) for s in shapes.hidden if len(s) > 1]
        if self.unlimited and max(sides, default=0) > LONGEST_SIDE:
            return f"left out: it takes no limit on sides, and one of {max(sides)} would take minutes a step"
        return None


def reference() -> Contender:
    """Return what every other row is compared with."""
    return Contender(REFERENCE, "torch", "AdamW", lambda p: Together(adamw(p.all)))


def adamw(params: list[Any]) -> torch.optim.Optimizer:
    """Return torch's fused AdamW, which also trains what matrix methods of peers leave."""
    return torch.optim.AdamW(params or [{"params": []}], RATE, fused=True)
