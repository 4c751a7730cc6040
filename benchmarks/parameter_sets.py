"""The shapes that step times are measured on, as lists: what `steepest bench` uses."""

from __future__ import annotations

from collections.abc import Callable

from steepest.bench import sets

Shapes = list[tuple[int, ...]]


def _shapes(name: str) -> Callable[[], Shapes]:
    return lambda: [*sets.SETS[name].auxiliary, *sets.SETS[name].hidden]


SETS = {name: _shapes(name) for name in sets.SETS}
