"""A character model on Tiny Shakespeare, where the paper of preconditioned norms compares MuAdam."""

from __future__ import annotations

from steepest.race.paper import Claim
from steepest.race.task import Task
from steepest.race.tasks.shakespeare import Size, transformer_task

SOURCE = "Preconditioned Norms (arXiv 2510.10777), character-level language modelling"
MARGIN = 0.02
"""Nats up to which results count as equal: about what another seed changes."""

SIZES = {
    "cpu": Size(
        layers=3,
        heads=4,
        width=48,
        context=32,
        steps=400,
        batch_size=16,
        validation=160,
        target=2.38,
        step_ms=20.0,
    ),
    # The character model of nanoGPT (config/train_shakespeare_char.py), the usual one for this text. The
    # paper's own settings are not known here, so that there is no paper protocol for this task.
    "full": Size(
        layers=6,
        heads=6,
        width=384,
        context=256,
        steps=5000,
        batch_size=64,
        validation=400,
        target=None,
        step_ms=20000.0,
        dropout=0.2,
    ),
}

CLAIMS = (
    Claim(SOURCE, "MuAdam is competitive with AdamW", "MuAdam", "no worse", "AdamW", margin=MARGIN),
    Claim(SOURCE, "MuAdam is competitive with Muon", "MuAdam", "no worse", "Muon", margin=MARGIN),
)


def task(preset: str = "cpu") -> Task:
    """Return the task at a preset: ``"full"`` is nanoGPT's character model, ``"cpu"`` a small one."""
    return transformer_task("charlm", SIZES[preset], preset=preset, claims=CLAIMS, schedule="cosine")
