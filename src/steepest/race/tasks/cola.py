"""Is a sentence English? GLUE's CoLA and a small pretrained transformer."""

from __future__ import annotations

from steepest.race.data.sources import COLA
from steepest.race.task import Task
from steepest.race.tasks.glue import Corpus, Size, glue_task
from steepest.race.tasks.pretrained import OFFLINE
from steepest.race.tasks.sentences import Choice

MARGINS = {"matthews": 0.03, "val_loss": 0.01}
"""Differences up to which results count as equal. A short run moves the loss before it moves Matthews."""

SIZES = {
    "cpu": Size(
        layers=3,
        trained=1,
        lora_rank=8,
        steps=150,
        batch_size=32,
        choice=Choice(max_length=16, train=4096, validation=256, balanced=True),
        target=0.68,
        step_ms=80.0,
    ),
    "full": Size(
        layers=None,
        trained=None,
        lora_rank=0,
        steps=1600,  # three passes over 8,551 sentences
        batch_size=16,
        choice=Choice(max_length=64, train=None, validation=None),
        target=None,
        step_ms=800.0,
    ),
}
CORPUS = Corpus("cola", "CoLA (GLUE)", COLA, MARGINS, SIZES)


def task(
    preset: str = "cpu", *, model: str = OFFLINE, lora_rank: int | None = None, layers: int | None = None
) -> Task:
    """Return the task at a preset.

    Args:
        preset: "cpu": adapters on the third layer of the model, what lies below computed once;
            "full": all weights of the whole model and three passes over the data.
        model: the offline model, a folder, or a name of the Hugging Face hub.
        lora_rank: 0 trains weights, more trains adapters of that rank on every linear layer. Default: 8 for
            "cpu", 0 for "full".
        layers: how many layers of the model to keep, from the embeddings up. Default: 3 for "cpu", all for
            "full".

    Raises:
        RaceError: an option is out of its range, or a library is missing.
    """
    return glue_task(CORPUS, preset, model_name=model, lora_rank=lora_rank, layers=layers)
