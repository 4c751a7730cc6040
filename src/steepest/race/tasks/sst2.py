"""Is a sentence of a film review friendly? GLUE's SST-2 and a small pretrained transformer."""

from __future__ import annotations

from steepest.race.data.sources import SST2
from steepest.race.task import Task
from steepest.race.tasks.glue import Corpus, Size, glue_task
from steepest.race.tasks.pretrained import OFFLINE
from steepest.race.tasks.sentences import Choice

MARGIN = 0.01
"""Accuracy up to which results count as equal: nine of the 872 validation sentences."""

SIZES = {
    "cpu": Size(
        layers=3,
        trained=1,
        lora_rank=8,
        steps=120,
        batch_size=32,
        choice=Choice(max_length=24, train=4096, validation=160),
        target=0.41,
        step_ms=80.0,
    ),
    "full": Size(
        layers=None,
        trained=None,
        lora_rank=0,
        steps=12_600,  # three passes over 67,349 sentences
        batch_size=16,
        choice=Choice(max_length=64, train=None, validation=None),
        target=None,
        step_ms=800.0,
    ),
}
CORPUS = Corpus("sst2", "SST-2 (GLUE)", SST2, {"val_accuracy": MARGIN}, SIZES)


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
