"""Odd quintic polynomials a s + b s^3 + c s^5 that lift singular values towards one.

A schedule is one polynomial a step. The slope at zero says how far weak values are lifted, the band where
strong ones end; more of one costs the other, and schedules differ in what they trade.
"""

from __future__ import annotations

Quintic = tuple[float, float, float]

# Largest slope at zero for a band around one. Source: K. Jordan et al., "Muon", 2024.
NEWTON_SCHULZ: Quintic = (3.4445, -4.7750, 2.0315)

# A minimax-optimal polynomial for each step. Source: Amsel et al., "The Polar Express", arXiv 2505.16932.
POLAR_EXPRESS: tuple[Quintic, ...] = (
    (8.1566, -22.4833, 15.8788),
    (4.0429, -2.8089, 0.5000),
    (3.8917, -2.7725, 0.5061),
    (3.2858, -2.3681, 0.4645),
    (2.3465, -1.7098, 0.4232),
)
POLAR_EXPRESS_MARGIN = 1.02

# The same construction from MINIMAX_FLOOR, without safety factors inside: the quintic closest to one on the
# interval [l, 2 - l] that the steps before leave ([floor, 1] for the first), found by Remez exchange. Its
# error is the next 1 - l. The limit is the cubically convergent (15 s - 10 s^3 + 3 s^5) / 8. Beyond the
# intervals these polynomials are steep: bfloat16 rounding leaves them and diverges. The margin keeps a matrix
# of rank one, whose s is 1, off the steep end of the first.
MINIMAX_FLOOR = 2e-3
MINIMAX_MARGIN = 1.01
MINIMAX: tuple[Quintic, ...] = (
    (8.426788, -24.936134, 18.492493),
    (4.111647, -3.059130, 0.574954),
    (3.714570, -2.778125, 0.542939),
    (2.781950, -2.074927, 0.463501),
    (1.993145, -1.375814, 0.387787),
    (1.875485, -1.250539, 0.375054),
    (1.875000, -1.250000, 0.375000),
)

# max |s - 1| after so many steps, for s from MINIMAX_FLOOR to 1, in exact arithmetic, rounded up.
MINIMAX_ERROR = {1: 0.984, 2: 0.932, 3: 0.747, 4: 0.328, 5: 0.025, 6: 2e-5, 7: 1e-12}


def newton_schulz_schedule(steps: int) -> list[Quintic]:
    """The same polynomial `steps` times."""
    return [NEWTON_SCHULZ] * steps


def polar_express_schedule(steps: int) -> list[Quintic]:
    """The first `steps` polynomials; the last one repeats after the fifth step."""
    return _prefix(POLAR_EXPRESS, steps)


def minimax_schedule(steps: int) -> list[Quintic]:
    """The first `steps` polynomials; the limit repeats after the seventh step."""
    return _prefix(MINIMAX, steps)


def _prefix(quintics: tuple[Quintic, ...], steps: int) -> list[Quintic]:
    return [*quintics[:steps], *[quintics[-1]] * (steps - len(quintics))]
