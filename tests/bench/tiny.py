"""A parameter set that costs nothing, and results made up for judging them."""

from __future__ import annotations

from typing import Any

from steepest.bench.sets import ParameterSet

TINY = ParameterSet("tiny", "Tiny", ((20, 24), (24,), (4, 3, 3, 3)), ((30, 20),))


def row(name: str, times: list[float], **more: Any) -> dict[str, Any]:
    library, _, rest = name.partition(" ")
    told = {
        "name": name,
        "library": library,
        "method": rest.split(" ")[0],
        "cycle": 1,
        "note": "",
        "times_ms": times,
        "first_ms": times[0] + 500 if times else 0.0,
        "state_bytes_per_parameter": 8.0,
        "peak_bytes": 2_000_000,
    }
    return told | more


def panel(*rows: dict[str, Any], set: str = "gpt", **more: Any) -> dict[str, Any]:
    told = {
        "set": set,
        "title": f"Set {set}",
        "family": "elementwise",
        "parameters": 1_000_000,
        "complete": True,
        "load": 0.5,
        "rows": list(rows),
    }
    return told | more


def results(*panels: dict[str, Any], device: str = "cpu", **more: Any) -> dict[str, Any]:
    told = {
        "schema": 1,
        "complete": True,
        "key": "k",
        "command": "steepest bench",
        "machine": {
            "cpu": "Chip",
            "cores": 2,
            "threads": 2,
            "ram_gib": 8.0,
            "device": device,
            "native": "avx2, cc 1",
        },
        "versions": {"torch": "2.13"},
        "missing": {},
        "panels": list(panels),
    }
    return told | more
