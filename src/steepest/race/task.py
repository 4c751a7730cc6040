"""What a race needs to know of a task.

A task of your own is a module with a few functions and one `Task`, or a function that returns one; pass it
as ``module:object``.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from steepest.race.paper import Claim, Paper
from steepest.race.records import RaceError
from steepest.race.schedules import check_schedule
from steepest.spelling import Spelled, suggest

PRESETS = ("cpu", "full")


@dataclass(frozen=True)
class Task(Spelled):
    """A model, data and a loss that every optimizer of a race trains on the same way.

    Args:
        name: how records and tables call it.
        version: change it when the task's results change; old records are then no longer reused.
        description: one line for the report: model, data, loss.
        data: loads the data once per process; what it returns goes to the other functions.
        model: builds the model from the data. Called right after seeding: a seed is an initialisation.
        batch: draws a batch: ``batch(data, generator, batch_size)``. All randomness comes from `generator`,
            so that a seed is a sequence of batches, the same for every optimizer.
        loss: the training loss of a batch: ``loss(model, batch)``, a scalar.
        evaluate: ``evaluate(model, data)``, metrics on held-out data; ``"val_loss"`` is required. Called
            without gradients and in evaluation mode.
        steps: steps of one run.
        batch_size: examples in a batch.
        target: the validation loss at which the task counts as learned, or None.
        auxiliary: patterns (as in shells) of the names of matrices that a hybrid optimizer leaves to its
            auxiliary rule: embeddings and output heads. Vectors go there without being named.
        step_ms: what one step with its data and evaluation costs about, on one 2.5 GHz core; for ``--plan``.
        settings: whatever else determines a result (widths, a fingerprint of the data): part of a run's key.
        preset: the scale it was made for, "cpu" or "full".
        paper: the settings of the paper it comes from, for ``--protocol paper``, or None.
        claims: what that paper says came out.
        headline: the metric of ``evaluate`` that tables show first besides the validation loss.
        schedule: the learning rate's course, "linear", "cosine" or "constant", unless a race names another.
        warmup: the part of the steps over which the learning rate rises first.
        lr_scale: by how much the rates that work here differ from those of training from scratch; the grid of
            every optimizer begins at its usual place times this. 0.03 suits pretrained transformers.
        twin: for tasks about invariance: ``twin(data, model)`` returns the same problem in other
            coordinates, ``(data', model')``, computing the same function at the start. Both are trained side
            by side on the same batches, each by an optimizer of its own, and the run has the metric
            ``"deviation"``: the largest difference of their training losses, as a part of the first.

    Raises:
        TypeError: an argument that a task does not have.
        RaceError: the preset or the schedule is unknown, the warm-up is not a part of the run, or the scale
            of rates is not a positive number.
    """

    name: str
    version: str
    description: str
    data: Callable[[], Any]
    model: Callable[[Any], nn.Module]
    batch: Callable[..., Any]
    loss: Callable[[nn.Module, Any], Tensor]
    evaluate: Callable[[nn.Module, Any], Mapping[str, float]]
    steps: int
    batch_size: int
    target: float | None = None
    auxiliary: tuple[str, ...] = ()
    step_ms: float = 10.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    preset: str = "cpu"
    paper: Paper | None = None
    claims: tuple[Claim, ...] = ()
    headline: str = "val_loss"
    schedule: str = "linear"
    warmup: float = 0.05
    lr_scale: float = 1.0
    twin: Callable[[Any, nn.Module], tuple[Any, nn.Module]] | None = None

    def __post_init__(self) -> None:
        check_preset(self.preset)
        check_schedule(self.schedule, self.warmup)
        if not (0 < self.lr_scale < math.inf):
            raise RaceError(f"lr_scale must be a positive finite number, got {self.lr_scale!r}")

    def is_auxiliary(self, parameter_name: str) -> bool:
        """Say whether a hybrid leaves the parameter of this name to its auxiliary rule."""
        return any(fnmatch.fnmatchcase(parameter_name, pattern) for pattern in self.auxiliary)


def check_preset(preset: str, where: str = "") -> None:
    """Refuse what is no preset; `where` begins the message.

    Raises:
        RaceError: naming the presets there are.
    """
    if preset not in PRESETS:
        hint = suggest(str(preset), list(PRESETS))
        raise RaceError(f"{where}preset must be one of {', '.join(PRESETS)}, got {preset!r}{hint}")


def one_line(text: object, limit: int = 300) -> str:
    """Fold a message into one line of at most `limit` characters."""
    folded = " ".join(str(text).split())
    return folded if len(folded) <= limit else folded[: limit - 3] + "..."
