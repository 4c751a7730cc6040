"""Rows to compare the library with: torch's, those of other packages, and a formula written down plainly."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from steepest.bench.contenders import LONGEST_SIDE, RATE, REFRESH, Contender, Stepper, Together, adamw
from steepest.bench.plain import PlainANDI
from steepest.bench.sets import Parameters

PEERS = {
    "plain": "",
    "torch": "torch",
    "pytorch-optimizer": "pytorch_optimizer",
    "heavyball": "heavyball",
    "heavyball-compiled": "heavyball",
}
"""Where rows to compare with come from, and the module that each needs."""
COMMON_PEERS = ("plain", "torch", "pytorch-optimizer", "heavyball")


def peer_rows(library: str) -> list[Contender]:
    """Return the rows of one of ``PEERS``, which must be installed."""
    return {
        "plain": _plain,
        "torch": _torch,
        "pytorch-optimizer": _pytorch_optimizer,
        "heavyball": partial(_heavyball, None),
        "heavyball-compiled": partial(_heavyball, "default"),
    }[library]()


def _plain() -> list[Contender]:
    return [Contender("plain ANDI", "plain", "ANDI", lambda p: Together(PlainANDI(p.all)))]


def _torch() -> list[Contender]:
    optim = torch.optim

    def row(name: str, method: str, make: Callable[[list[Any]], torch.optim.Optimizer]) -> Contender:
        return Contender(f"torch {name}", "torch", method, lambda p: Together(make(p.all)))

    return [
        row("AdamW foreach", "AdamW", lambda p: optim.AdamW(p, RATE, foreach=True)),
        row("Adam fused", "Adam", lambda p: optim.Adam(p, RATE, fused=True)),
        row("Adagrad foreach", "Adagrad", lambda p: optim.Adagrad(p, RATE, foreach=True)),
        row(
            "SGD Nesterov fused",
            "SGD",
            lambda p: optim.SGD(p, RATE, momentum=0.9, nesterov=True, fused=True),
        ),
        Contender(
            "torch Muon",
            "torch",
            "Muon",
            lambda p: Together(optim.Muon(p.matrices, RATE), adamw(p.rest)),
            flat=True,
            note="with torch's fused AdamW",
        ),
    ]


def _matrix_peer(
    library: str,
    method: str,
    make: Callable[[list[Any]], Any],
    cycle: int = 1,
    note: str = "",
    unlimited: bool = False,
) -> Contender:
    return Contender(
        f"{library} {method}",
        library,
        method,
        lambda p: Together(make(p.matrices), adamw(p.rest)),
        cycle,
        flat=True,
        note="; ".join(part for part in (note, "with torch's fused AdamW") if part),
        unlimited=unlimited,
    )


def _pytorch_optimizer() -> list[Contender]:
    module = importlib.import_module("pytorch_optimizer")
    library = "pytorch-optimizer"
    return [
        Contender(
            f"{library} MADGRAD", library, "MADGRAD", lambda p: Together(module.MADGRAD(p.all, lr=RATE))
        ),
        _matrix_peer(
            library, "Muon", lambda p: module.Muon([{"params": p, "use_muon": True}], lr=RATE, foreach=True)
        ),
        _matrix_peer(
            library,
            "SOAP",
            lambda p: module.SOAP(
                p, lr=RATE, precondition_frequency=REFRESH, max_precondition_dim=LONGEST_SIDE
            ),
            REFRESH,
        ),
        _matrix_peer(
            library,
            "Shampoo",
            lambda p: module.Shampoo(p, lr=RATE, preconditioning_compute_steps=REFRESH),
            REFRESH,
            "without momentum",
            unlimited=True,
        ),
        _matrix_peer(
            library,
            "SPlus",
            # Its limit is the first side left out.
            lambda p: module.SPlus(p, lr=RATE, inverse_steps=REFRESH, max_dim=LONGEST_SIDE + 1),
            REFRESH,
        ),
    ]


class Heavyball(Together):
    """An optimizer of heavyball, run eagerly or through `torch.compile` with the given mode."""

    def __init__(self, mode: str | None, *optimizers: torch.optim.Optimizer) -> None:
        super().__init__(*optimizers)
        self._mode = mode
        self._switches: Any = importlib.import_module("heavyball.utils")

    def step(self) -> None:
        """Take a step in the mode of this optimizer: heavyball keeps it in globals."""
        self._switches.compile_mode = self._mode
        self._switches.compile_mode_recommended_to_none = self._mode
        super().step()


def _heavyball(mode: str | None) -> list[Contender]:
    module = importlib.import_module("heavyball")
    library = "heavyball" if mode is None else "heavyball-compiled"
    how = "eager, its compilation is off" if mode is None else "torch.compile"
    bases = {"precondition_frequency": REFRESH, "max_precond_dim": LONGEST_SIDE, "merge_dims": False}

    def matrix_row(method: str, cycle: int = 1, **arguments: Any) -> Contender:
        def build(p: Parameters) -> Stepper:
            make = getattr(module, method)
            return Heavyball(mode, make(p.matrices, lr=RATE, **arguments), adamw(p.rest))

        return Contender(
            f"{library} {method}",
            library,
            method,
            build,
            cycle,
            flat=True,
            note=f"{how}; with torch's fused AdamW",
        )

    return [
        Contender(
            f"{library} AdamW",
            library,
            "AdamW",
            lambda p: Heavyball(mode, module.AdamW(p.all, lr=RATE)),
            note=how,
        ),
        matrix_row("Muon"),
        *(matrix_row(method, REFRESH, **bases) for method in ("SOAP", "KLShampoo", "KLSOAP")),
    ]
