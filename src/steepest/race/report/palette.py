"""How an optimizer looks: the same colour, dash and marker in every figure.

The hues follow the colour-blind-safe set of Okabe and Ito, darkened for text on white and lightened for dark
backgrounds. Dash and marker differ as well, so that nothing depends on colour.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from steepest.race.statistics import Summary

LIGHT = ("#56606c", "#c8500a", "#0b6aa8", "#00805c", "#a5428a", "#8f6c00", "#6f4a2a", "#574bc9")
DARK = ("#aab4c0", "#f5894a", "#5fb4ec", "#30c79c", "#e391c9", "#e0b93f", "#c69c78", "#a69eff")
DASHES = ("", "7 3", "2 2.5", "9 3 2 3", "4 2", "12 3", "6 2 1.5 2 1.5 2", "3 4")
MARKERS = ("circle", "square", "triangle", "diamond", "down", "plus", "hexagon", "bar")
FIXED = {"AdamW": 0, "ANDI": 1, "Muon": 2, "MuAdam": 3, "MuAdamSANIA": 4, "SGD": 5}


@dataclass(frozen=True)
class Look:
    """Colour number, dash pattern and marker of one optimizer."""

    colour: int
    dash: str
    marker: str

    @property
    def css(self) -> str:
        """The class that sets the colour."""
        return f"s{self.colour}"


def looks(summary: Summary) -> dict[str, Look]:
    """Give every optimizer of the summary its look; well-known names always get the same one."""
    return assign(o.name for task in summary.tasks for o in task.optimizers)


def assign(names: Iterable[str]) -> dict[str, Look]:
    """Assign looks to names; beyond eight the colours repeat with another dash and marker."""
    order = sorted(set(names), key=lambda name: (FIXED.get(name, len(FIXED)), name))
    taken = {FIXED[name] for name in order if name in FIXED}
    free = [i for i in range(len(LIGHT)) if i not in taken]
    free.sort(key=lambda i: (i in FIXED.values(), i))
    result: dict[str, Look] = {}
    extra = 0
    for name in order:
        if name in FIXED:
            slot, turn = FIXED[name], 0
        else:
            slots = free or list(range(len(LIGHT)))
            slot, turn = slots[extra % len(slots)], extra // len(slots) + (not free)
            extra += 1
        result[name] = Look(
            slot, DASHES[(slot + 3 * turn) % len(DASHES)], MARKERS[(slot + turn) % len(MARKERS)]
        )
    return result
