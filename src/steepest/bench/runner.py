"""A whole run: panels, scaling and the rest, each kept as soon as it is measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from steepest.bench import scaling
from steepest.bench.contenders import BenchError, Contender
from steepest.bench.machine import copy_bandwidth, import_seconds, load, machine, versions
from steepest.bench.orthogonality import deviations
from steepest.bench.results import SCHEMA, Results, dump, read, write
from steepest.bench.selection import families, select
from steepest.bench.sets import SETS, Gradients, ParameterSet
from steepest.bench.timing import Say, measure
from steepest.race.provenance import core_fingerprint
from steepest.spelling import suggest

DEFAULT_SETS = ("gpt", "resnet", "small")


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Args:
        sets: names of parameter sets.
        optimizers: methods of the library, "default" or "all".
        peers: where rows to compare with come from, "default" or "none".
        seconds: time for the rounds of each panel; it takes at least 5, in whole refresh cycles, whatever
            they cost.
        rounds: rounds of every panel; None is as many as fit, up to 100.
        device: "cpu", "cuda", "cuda:1", ...
        threads: threads of torch; None leaves them as they are.
        extra: also scaling, import time, copy bandwidth and orthogonality.

    Raises:
        BenchError: a name is not known, a number is out of range, the device is not there.
    """

    sets: tuple[str, ...] = DEFAULT_SETS
    optimizers: tuple[str, ...] = ("default",)
    peers: tuple[str, ...] = ("default",)
    seconds: float = 10.0
    rounds: int | None = None
    device: str = "cpu"
    threads: int | None = None
    extra: bool = False

    def __post_init__(self) -> None:
        for name in self.sets:
            if name not in SETS:
                hint = suggest(name, list(SETS)) or f"; choose from {', '.join(SETS)}"
                raise BenchError(f"--sets: unknown parameter set {name!r}{hint}")
        for name, value, least in (
            ("seconds", self.seconds, 0),
            ("rounds", self.rounds, 1),
            ("threads", self.threads, 1),
        ):
            if value is not None and not value >= least:
                raise BenchError(f"--{name} must be at least {least}, got {value}")
        _device(self.device)

    @property
    def key(self) -> str:
        """A hash of all that an interrupted run must have in common with the one that goes on."""
        about = {**asdict(self), **versions(), "core": core_fingerprint()}
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def run(
    settings: Settings,
    path: Path,
    command: str,
    say: Say = lambda line: None,
    finished: Callable[[dict[str, Any]], None] = lambda panel: None,
    *,
    fresh: bool = False,
    sets: Mapping[str, ParameterSet] = SETS,
) -> Results:
    """Measure, keep every part in the file at ``path`` as it comes, and return the results.

    A file of an unfinished run of the same settings, versions and code is gone on with; any other is
    replaced.

    Args:
        settings: what to measure.
        path: the results file.
        command: the command line, for the record.
        say: is told what is being done.
        finished: is given every panel that was measured (not those taken from the file).
        fresh: measure everything, whatever the file holds.
        sets: the parameter sets by name.

    Raises:
        BenchError: the file cannot be read or written, or a name is not known.
        KeyboardInterrupt: the user stopped; the file holds what was measured.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = _device(settings.device)
    rows, missing = select(settings.optimizers, settings.peers)
    before = read(path)
    if before and not fresh and not before["complete"] and before["key"] == settings.key:
        results = before
        say(f"going on with the unfinished run in {path}")
    else:
        results = _empty(settings, command, device, missing)
    write(path, dump(results))
    for name in settings.sets:
        grouped = families(rows)
        for family, members in grouped.items():
            if _has(results, name, family):
                say(f"{name}, {family}: in {path} already")
                continue
            gradients = Gradients(sets[name], device)
            panel, whole = _panel(family, members, gradients, settings.seconds, settings.rounds, say)
            if any(row.get("times_ms") for row in panel["rows"]):
                results["panels"] = [
                    p for p in results["panels"] if (p["set"], p["family"]) != (name, family)
                ] + [panel]
                write(path, dump(results))
                finished(panel)
            if not whole:
                raise KeyboardInterrupt
    if settings.extra:
        _extra(results, device, settings.seconds, say, lambda: write(path, dump(results)))
    results["complete"] = True
    write(path, dump(results))
    return results


def _empty(
    settings: Settings, command: str, device: torch.device, missing: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "complete": False,
        "key": settings.key,
        "command": command,
        "machine": machine(device),
        "versions": versions(),
        "missing": dict(missing),
        "panels": [],
    }


def _panel(
    family: str,
    members: Sequence[Contender],
    gradients: Gradients,
    seconds: float,
    rounds: int | None,
    say: Say,
) -> tuple[dict[str, Any], bool]:
    shapes = gradients.shapes
    head = f"{shapes.name}, {family}"
    say(f"{head}: {len(members)} optimizers")
    busy = load()
    rows, whole = measure(members, gradients, seconds, rounds, lambda line: say(f"{head}: {line}"))
    panel = {
        "set": shapes.name,
        "title": shapes.title,
        "family": family,
        "parameters": shapes.entries,
        "complete": whole,
        "load": busy,
        "rows": [row.to_json(shapes.entries) for row in rows],
    }
    return panel, whole


def _extra(
    results: Results, device: torch.device, seconds: float, say: Say, keep: Callable[[], None]
) -> None:
    each = seconds / 30
    grown = results.setdefault("scaling", {})
    parts: list[tuple[dict[str, Any], str, str, Callable[[], Any]]] = [
        (results, "import_seconds", "import time", import_seconds),
        (results, "copy_bytes_per_second", "copy bandwidth", lambda: copy_bandwidth(device)),
        (results, "orthogonality", "orthogonality of Muon's steps", lambda: deviations(device)),
        (grown, "count", "scaling with parameters", lambda: scaling.by_count(device, each, say)),
        (grown, "side", "scaling with a matrix's side", lambda: scaling.by_side(device, each, say)),
    ]
    for place, name, title, find in parts:
        if name not in place:
            say(title)
            place[name] = find()
            keep()


def _has(results: Results, name: str, family: str) -> bool:
    return any(p["set"] == name and p["family"] == family and p["complete"] for p in results["panels"])


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BenchError(f"--device must be cpu or cuda, got {name!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise BenchError(f"--device must be cpu or cuda, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BenchError(f"--device {name}: torch finds {torch.cuda.device_count()} CUDA devices here")
    return device
