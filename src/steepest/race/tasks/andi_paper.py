"""What all experiments of the ANDI paper have in common.

The author's scripts swept ANDI's learning rate only; AdamW and Muon ran at one rate each. ANDI's buffer
starts as the first update there, which `momentum_init` reproduces.
"""

from __future__ import annotations

from steepest.race.paper import Claim, Paper

SOURCE = "ANDI: Adaptive Norm-Distribution Interface (Khasia 2025), doi.org/10.5281/zenodo.17923146"
EARLIER = "an earlier version"
STEPS = 2500
BATCH_SIZE = 128
RATES = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005)


def andi_paper(*, adamw: float = 1e-3, muon: float = 0.05, part: str = "") -> Paper:
    """Return the paper's settings; ``part`` says which part or version of the paper they are from."""
    return Paper(
        source=f"{SOURCE}{', ' if part else ''}{part}",
        steps=STEPS,
        batch_size=BATCH_SIZE,
        seeds=(42, 1337),
        fixed={"AdamW": adamw, "Muon": muon},
        swept={"ANDI": RATES},
        kwargs={"ANDI": {"momentum_init": "gradient"}},
    )


def claim(text: str, left: str, relation: str, right: str | float, *, margin: float = 0.0) -> Claim:
    """Return a claim of the paper about final losses."""
    return Claim(SOURCE, text, left, relation, right, margin=margin)
