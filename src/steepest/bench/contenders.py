"""Who is measured: the library's methods, torch's, those of peers, and how each is built for a set.

Matrix methods get the same work wherever they come from: they train the hidden matrices, convolutions read
as (size(0), rest), and an AdamW trains embeddings, heads and vectors. Peers that do not route get torch's
fused AdamW for these, the fastest there is.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any, Protocol

import torch

from steepest._resolve import suggest
from steepest.bench.plain import PlainANDI
from steepest.bench.sets import Parameters, ParameterSet
from steepest.catalogue import methods

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
LEFT_OUT = {
    "KFAC": "it is built from a model's layers, not from a list of tensors",
    "Steepest": "it is whatever its arguments say",
}
DEFAULTS = ("ANDI", "AdamW", "SignSGD", "Muon", "MuAdam")
PEERS = {
    "plain": "",
    "torch": "torch",
    "pytorch-optimizer": "pytorch_optimizer",
    "heavyball": "heavyball",
    "heavyball-compiled": "heavyball",
}
"""Where rows to compare with come from, and the module that each needs."""
COMMON_PEERS = ("plain", "torch", "pytorch-optimizer", "heavyball")
REFERENCE = "torch AdamW fused"
REFRESH = 10
"""Steps from refresh to refresh of every Kronecker method and its peers."""
LONGEST_SIDE = 2048
"""A longer side is not preconditioned by Kronecker methods that have such a limit."""
ARGUMENTS: dict[str, dict[str, Any]] = {
    **{name: {"precondition_frequency": REFRESH} for family in KRONECKER for name in FAMILIES[family]},
    "ClippedScion": {"rho": 1.0},
}
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


def select(names: Sequence[str], peers: Sequence[str]) -> tuple[list[Contender], dict[str, str]]:
    """Return the rows for methods and peers, and why rows are missing, by what is missing.

    The reference, torch's fused AdamW, always takes part.

    Args:
        names: methods of the library, "default" or "all"; capitals do not matter.
        peers: keys of ``PEERS``, "default" or "none".

    Raises:
        BenchError: a name is not known.
    """
    chosen = _methods(names)
    libraries = _libraries(peers)
    missing = {name: LEFT_OUT[name] for name in LEFT_OUT if "all" in names}
    found = [_reference()]
    for method in chosen:
        found += _ours(method)
    for library in libraries:
        if PEERS[library] and find_spec(PEERS[library]) is None:
            missing[library] = "it is not installed"
            continue
        rows = [row for row in _peers(library) if row.method in (*chosen, "SGD")]
        found += [row for row in rows if row.method != "SGD" or "ANDI" in chosen]
    return list({row.name: row for row in found}.values()), missing


def families(rows: Iterable[Contender]) -> dict[str, list[Contender]]:
    """Return the rows by family, each with the reference first; a family of the reference alone is none."""
    rows = list(rows)
    found = {}
    for family in FAMILIES:
        members = [row for row in rows if row.family == family and row.name != REFERENCE]
        if members:
            found[family] = [_reference(), *members]
    return found or {"elementwise": [_reference()]}


def _methods(names: Sequence[str]) -> list[str]:
    known = [name for family in FAMILIES.values() for name in family]
    folded = {name.casefold(): name for name in known}
    found: list[str] = []
    for name in names:
        if name == "all":
            found += known
        elif name == "default":
            found += DEFAULTS
        elif name.casefold() in folded:
            found.append(folded[name.casefold()])
        else:
            why = {left.casefold(): reason for left, reason in LEFT_OUT.items()}.get(name.casefold())
            if why:
                raise BenchError(f"{name} cannot be measured: {why}")
            hint = suggest(name, [*known, "all", "default"]) or f"; choose from {', '.join(known)}"
            raise BenchError(f"--optimizers: unknown method {name!r}{hint}")
    return list(dict.fromkeys(found))


def _libraries(names: Sequence[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        if name == "default":
            found += COMMON_PEERS
        elif name in PEERS:
            found.append(name)
        elif name != "none":
            hint = suggest(name, [*PEERS, "default", "none"]) or f"; choose from {', '.join(PEERS)}"
            raise BenchError(f"--peers: unknown peer {name!r}{hint}")
    return list(dict.fromkeys(found))


def _reference() -> Contender:
    return Contender(REFERENCE, "torch", "AdamW", lambda p: Together(_adamw(p.all)))


def _adamw(params: list[Any]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(params or [{"params": []}], RATE, fused=True)


def _ours(method: str) -> list[Contender]:
    cls: Any = methods()[method]
    arguments = {"lr": RATE, **ARGUMENTS.get(method, {})}
    accepted = inspect.signature(cls).parameters
    if "max_precondition_dim" in accepted:
        arguments["max_precondition_dim"] = LONGEST_SIDE

    def build(params: Parameters, **more: Any) -> Stepper:
        groups: list[dict[str, Any]] = [{"params": params.hidden}]
        if params.auxiliary:
            groups.append({"params": params.auxiliary, **({"rule": "aux"} if "aux" in accepted else {})})
        return Together(cls(groups, **arguments, **more))

    row = Contender(
        f"steepest {method}",
        "steepest",
        method,
        build,
        arguments.get("precondition_frequency", 1),
        unlimited="precondition_frequency" in accepted and "max_precondition_dim" not in accepted,
    )
    if method not in ("ANDI", "AdamW"):
        return [row]
    unchecked = partial(build, nonfinite="propagate")
    return [row, replace(row, name=f"{row.name} unchecked", build=unchecked, note="nonfinite='propagate'")]


def _peers(library: str) -> list[Contender]:
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
            lambda p: Together(optim.Muon(p.matrices, RATE), _adamw(p.rest)),
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
        lambda p: Together(make(p.matrices), _adamw(p.rest)),
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
            return Heavyball(mode, make(p.matrices, lr=RATE, **arguments), _adamw(p.rest))

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
