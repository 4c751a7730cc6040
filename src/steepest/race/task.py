"""What a race needs to know of a task, and how a name becomes one.

A task of your own is a module with a few functions and one `Task`; pass it as ``module:object``.
"""

from __future__ import annotations

import fnmatch
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from steepest._resolve import suggest
from steepest.race.records import RaceError

BUILTIN = {
    "digits": "steepest.race.tasks.digits:task",
    "chars": "steepest.race.tasks.chars:task",
}


@dataclass(frozen=True)
class Task:
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

    def is_auxiliary(self, parameter_name: str) -> bool:
        """Say whether a hybrid leaves the parameter of this name to its auxiliary rule."""
        return any(fnmatch.fnmatchcase(parameter_name, pattern) for pattern in self.auxiliary)


def load_task(name: str) -> Task:
    """Return the task of an embedded name or of ``module:object``.

    Raises:
        RaceError: there is no such task, or it is not a `Task`.
    """
    if ":" not in name and name not in BUILTIN:
        hint = suggest(name, list(BUILTIN)) or f"; choose from {', '.join(BUILTIN)}, or give module:object"
        raise RaceError(f"unknown task {name!r}{hint}")
    module, _, attribute = BUILTIN.get(name, name).partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        task = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise RaceError(one_line(f"cannot load task {name!r}: {type(error).__name__}: {error}")) from None
    if not isinstance(task, Task):
        raise RaceError(f"{name!r} is a {type(task).__name__}, not a steepest.race.Task")
    return task


def load_tasks(names: Iterable[str]) -> dict[str, Task]:
    """Return tasks by the names given for them.

    Raises:
        RaceError: as in `load_task`, or two different tasks call themselves the same.
    """
    tasks = {name: load_task(name) for name in names}
    called = [task.name for task in tasks.values()]
    for name in called:
        if called.count(name) > 1:
            raise RaceError(f"two tasks are named {name!r}; give one of them another Task.name")
    return tasks


def one_line(text: object, limit: int = 300) -> str:
    """Fold a message into one line of at most `limit` characters."""
    folded = " ".join(str(text).split())
    return folded if len(folded) <= limit else folded[: limit - 3] + "..."
