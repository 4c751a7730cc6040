"""The ANDI paper's character transformer on Tiny Shakespeare."""

from __future__ import annotations

from steepest.race.task import Task
from steepest.race.tasks.andi_paper import BATCH_SIZE, STEPS, andi_paper, claim
from steepest.race.tasks.shakespeare import Size, transformer_task

SIZES = {
    "cpu": Size(
        layers=2,
        heads=4,
        width=64,
        context=32,
        steps=600,
        batch_size=16,
        validation=256,
        target=2.2,
        step_ms=16.0,
    ),
    "full": Size(
        layers=4,
        heads=4,
        width=128,
        context=64,
        steps=STEPS,
        batch_size=BATCH_SIZE,
        validation=2000,
        target=None,
        step_ms=700.0,
    ),
}

CLAIMS = (
    claim("ANDI ends below Muon", "ANDI", "better", "Muon"),
    claim("Muon ends below AdamW", "Muon", "better", "AdamW"),
    claim("ANDI ends below AdamW", "ANDI", "better", "AdamW"),
)


def task(preset: str = "cpu") -> Task:
    """Return the task at a preset: ``"full"`` is the paper's model and length, ``"cpu"`` a smaller one."""
    return transformer_task(
        "gpt", SIZES[preset], preset=preset, paper=andi_paper(adamw=3e-4, muon=0.02), claims=CLAIMS
    )
