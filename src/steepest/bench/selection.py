"""From names of methods and of peers to rows."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

from steepest.bench.contenders import (
    FAMILIES,
    KRONECKER,
    LONGEST_SIDE,
    RATE,
    REFERENCE,
    REFRESH,
    BenchError,
    Contender,
    Stepper,
    Together,
    adamw,
    reference,
)
from steepest.bench.peers import COMMON_PEERS, PEERS, peer_rows
from steepest.bench.sets import Parameters
from steepest.catalogue import methods
from steepest.spelling import suggest

LEFT_OUT = {
    "KFAC": "it is built from a model's layers, not from a list of tensors",
    "Steepest": "it is whatever its arguments say",
}
DEFAULTS = ("ANDI", "AdamW", "SignSGD", "Muon", "MuAdam")
ARGUMENTS: dict[str, dict[str, Any]] = {
    **{name: {"precondition_frequency": REFRESH} for family in KRONECKER for name in FAMILIES[family]},
    "ClippedScion": {"rho": 1.0},
}


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
    found = [reference()]
    for method in chosen:
        found += _ours(method)
    for library in libraries:
        if PEERS[library] and find_spec(PEERS[library]) is None:
            missing[library] = "it is not installed"
            continue
        rows = [row for row in peer_rows(library) if row.method in (*chosen, "SGD")]
        found += [row for row in rows if row.method != "SGD" or "ANDI" in chosen]
    return list({row.name: row for row in found}.values()), missing


def families(rows: Iterable[Contender]) -> dict[str, list[Contender]]:
    """Return the rows by family, each with the reference first; a family of the reference alone is none."""
    rows = list(rows)
    found = {}
    for family in FAMILIES:
        members = [row for row in rows if row.family == family and row.name != REFERENCE]
        if members:
            found[family] = [reference(), *members]
    return found or {"elementwise": [reference()]}


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


def _ours(method: str) -> list[Contender]:
    cls: Any = methods()[method]
    arguments = {"lr": RATE, **ARGUMENTS.get(method, {})}
    accepted = inspect.signature(cls).parameters
    if "max_precondition_dim" in accepted:
        arguments["max_precondition_dim"] = LONGEST_SIDE

    is_elementwise, has_aux = method in FAMILIES["elementwise"], "aux" in accepted

    def build(params: Parameters, **more: Any) -> Stepper:
        if is_elementwise:
            return Together(cls(params.all, **arguments, **more))
        if has_aux:
            groups = [{"params": params.matrices}, {"params": params.rest, "rule": "aux"}]
            return Together(cls([group for group in groups if group["params"]], **arguments, **more))
        return Together(cls(params.matrices, **arguments, **more), adamw(params.rest))

    row = Contender(
        f"steepest {method}",
        "steepest",
        method,
        build,
        arguments.get("precondition_frequency", 1),
        note="" if is_elementwise or has_aux else "with torch's fused AdamW",
        unlimited="precondition_frequency" in accepted and "max_precondition_dim" not in accepted,
    )
    if method not in ("ANDI", "AdamW"):
        return [row]
    unchecked = partial(build, nonfinite="propagate")
    return [row, replace(row, name=f"{row.name} unchecked", build=unchecked, note="nonfinite='propagate'")]
