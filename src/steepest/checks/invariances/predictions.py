"""What theory says: which optimizer must be invariant to which change of coordinates, and why.

All of it at eps = 0, zero damping, with exact polar factors and without L2 decay; decoupled decay multiplies
W and commutes with every linear change of coordinates, as do averages and sums over steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steepest.checks.invariances.measure import Verdict


@dataclass(frozen=True)
class Prediction:
    """The changes of coordinates that must not matter, those that make no sense, and the reason."""

    invariant: frozenset[str]
    why: str
    undefined: frozenset[str] = frozenset()

    def verdict(self, transform: str) -> Verdict:
        """Return the verdict to expect."""
        if transform in self.undefined:
            return "undefined"
        return "yes" if transform in self.invariant else "no"


@dataclass(frozen=True)
class Contender:
    """A row of the table: a class by name, and arguments it needs or that make it another method."""

    cls: str
    kwargs: Mapping[str, Any]


def _says(invariant: str, why: str, undefined: str = "") -> Prediction:
    return Prediction(frozenset(invariant.split()), why, frozenset(undefined.split()))


PREDICTIONS: dict[str, Prediction] = {
    "SGD": _says(
        "rotation",
        "The step is G, which turns with W. W/s has the gradient s*G but would need G/s.",
    ),
    "Steepest": _says("rotation", "Its defaults are SGD: Frobenius norm, dual scaling."),
    "NormalizedSGD": _says("rotation loss", "SGD's step over its own length, which no rotation changes."),
    "SignSGD": _says("loss", "The sign forgets every positive factor, but W/s would need sign(G)/s."),
    "Muon": _says(
        "rotation loss",
        "msign(Q G P) = Q msign(G) P for orthogonal Q and P; msign(cG) = msign(G).",
    ),
    "Scion": _says("rotation loss", "Muon's oracle for matrices; the radius is a constant."),
    "ClippedScion": _says(
        "rotation",
        "Scion's oracle; while clipping acts, the length is the dual norm, which grows with the loss.",
    ),
    "Adagrad": _says("loss", "G over the root of G^2 has no size, but W/s would need a step smaller by s."),
    "Adam": _says("loss", "As Adagrad. A rotation mixes entries, and squares of entries do not follow."),
    "AdamW": _says("loss", "As Adam; decoupled decay commutes with every change."),
    "MADGRAD": _says("", "The step goes as G^(1/3): scales would require G^-1, the loss G^0."),
    "AdamSANIA": _says(
        "entries rows columns",
        "m/v becomes s m / (s^2 v) = (m/v)/s, as W/s requires. For the same reason the loss divides steps.",
    ),
    "AdamSANIA(polyak)": _says(
        "entries rows columns",
        "As AdamSANIA; f and q are the same in all coordinates. The loss times c divides G/B by c and, "
        "while f is far below q, multiplies lambda by nearly c: it matters in second order only.",
    ),
    "MuAdam": _says("", "D^2 = V^(1/2) takes half of the scale away: G/D keeps sqrt(s)."),
    "MuAdamSANIA": _says(
        "entries rows columns",
        "D^2 = V: G/D is the same in all scales, so is its msign, and the outer 1/D is the 1/s that W/s "
        "requires.",
    ),
    "ANDI": _says(
        "",
        "r_i + c_j mixes the scales of rows and columns; a rotation changes the lengths of rows; the energy "
        "floor knows the size of the loss.",
    ),
    "Shampoo": _says(
        "rotation loss",
        "G G^T and G^T G turn with W, so do their roots; two fourth roots cancel the size of G. An affine "
        "change makes G G^T into A^-T G B^-T B^-1 G^T A^-1, which is no function of G G^T.",
    ),
    "OneSidedShampoo": _says("rotation loss", "As Shampoo, with one square root."),
    "SOAP": _says(
        "rotation loss",
        "Adam in eigenvectors, which turn with W. Their signs drop out, but they must be unique "
        "otherwise: distinct eigenvalues, no null space of two dimensions.",
    ),
    "SPlus": _says("loss", "The first step is the sign in W's own coordinates, which a rotation changes."),
    "SPlus(skip)": _says(
        "rotation loss",
        "SPlus's oracle after a first call that only gathers statistics: every sign is taken in "
        "eigenvectors.",
    ),
    "KLShampoo": _says(
        "rotation",
        "Both factors turn with W. Eigenvalues start at 0.1 and are capped: they know the loss's size.",
    ),
    "KLSOAP": _says(
        "rotation",
        "As SOAP; but refreshed bases depend on the loss's size against eigenvalues that start at 0.1.",
    ),
    "KFAC": _says(
        "rows columns affine rotation",
        "A^-1 G B^-1, where the covariances of output gradients (A) and inputs (B) transform as metrics "
        "must. The loss times c multiplies A by c^2: the step is divided by c. No layer holds W/s.",
        "entries",
    ),
    "KFAC(input)": _says(
        "columns rotation",
        "G B^-1: inputs are measured, outputs are not, so of changes of outputs only rotations do not "
        "matter.",
        "entries",
    ),
}
"""By row of the table, in its order."""


def contenders() -> dict[str, Contender]:
    """Return every row of the table: SGD of torch and all public methods of steepest, some in two forms."""
    import steepest
    from steepest.optimizer import RuleOptimizer

    rows = {"SGD": Contender("torch.optim:SGD", {})}
    for name in steepest.__all__:
        value = getattr(steepest, name)
        if isinstance(value, type) and issubclass(value, RuleOptimizer):
            rows |= {name: Contender(name, {}), **_forms().get(name, {})}
    order = list(PREDICTIONS)
    place = {name: order.index(name) if name in PREDICTIONS else len(order) for name in rows}
    return dict(sorted(rows.items(), key=lambda row: place[row[0]]))


def _forms() -> dict[str, dict[str, Contender]]:
    """Return, by class, the rows that need arguments."""
    from steepest import EMA, Eigenbasis, Max, UnitLMO

    basis = Eigenbasis(beta=0.999, start="skip", refresh="eigh")
    return {
        # ANDI treats matrices up to its threshold as vectors, and those of this problem are small.
        "ANDI": {"ANDI": Contender("ANDI", {"threshold": 0})},
        "AdamSANIA": {"AdamSANIA(polyak)": Contender("AdamSANIA", {"polyak": True})},
        # Above the dual norms of this problem, so that clipping acts.
        "ClippedScion": {"ClippedScion": Contender("ClippedScion", {"rho": 10.0})},
        # The clip is one number, the same in all affine coordinates, but it hides the size of the loss.
        "KFAC": {
            "KFAC": Contender("KFAC", {"kl_clip": None}),
            "KFAC(input)": Contender("KFAC", {"kl_clip": None, "statistics": "input"}),
        },
        # The longer side of 10 x 9 has a singular factor at first, which multiplies rounding.
        "OneSidedShampoo": {"OneSidedShampoo": Contender("OneSidedShampoo", {"side": "smaller"})},
        "Steepest": {
            "SPlus(skip)": Contender(
                "Steepest", {"norm": Max(), "preconditioner": basis, "momentum": EMA(), "step": UnitLMO()}
            )
        },
    }
