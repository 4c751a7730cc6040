"""Is a sentence English? GLUE's CoLA and a small pretrained transformer."""

from __future__ import annotations

from steepest.race.data.sources import COLA
from steepest.race.task import Task
from steepest.race.tasks.glue import Size, competitive, glue_task
from steepest.race.tasks.pretrained import OFFLINE

MARGIN = 0.03
"""Matthews correlation up to which results count as equal: about what another seed changes."""

SIZES = {
    "cpu": Size(
        layers=2,
        train_embeddings=False,
        steps=80,
        max_length=32,
        train=8192,
        validation=128,
        target=0.6,
        step_ms=190.0,
    ),
    "full": Size(
        layers=None,
        train_embeddings=True,
        steps=1600,  # three passes over 8,551 sentences
        max_length=64,
        train=None,
        validation=None,
        target=None,
        step_ms=800.0,
    ),
}


def task(preset: str = "cpu", *, model: str = OFFLINE, lora_rank: int = 0, layers: int | None = None) -> Task:
    """Return the task at a preset.

    Args:
        preset: "cpu": two layers of the model, its table of tokens frozen, 80 steps of 16 sentences; "full":
            the whole model and three passes over the data.
        model: the offline model, a folder, or a name of the Hugging Face hub.
        lora_rank: 0 trains all weights, more trains adapters of that rank on every linear layer. Default 0.
        layers: how many layers of the model to keep, from the embeddings up. Default: the preset's.

    Raises:
        RaceError: an option is out of its range, or a library is missing.
    """
    return glue_task(
        "cola",
        "CoLA (GLUE)",
        COLA,
        SIZES[preset],
        competitive("matthews", MARGIN),
        preset=preset,
        headline="matthews",
        model_name=model,
        lora_rank=lora_rank,
        layers=layers,
    )
