"""From a text to a task: ``gpt``, ``gpt@full``, ``sst2(lora_rank=8)``, ``my_file:my_task``."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from steepest.race.builtin import BUILTIN
from steepest.race.literals import parse_call, write_call
from steepest.race.records import RaceError
from steepest.race.task import Task, check_preset, one_line
from steepest.spelling import suggest


@dataclass(frozen=True)
class TaskText:
    """A task as it is written: ``name``, ``name@preset``, ``name(option=value)`` or all of it.

    ``head`` is a name of `BUILTIN` or ``module:object``; ``str()`` gives the one way to write it.
    """

    head: str
    preset: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> TaskText:
        """Read a text.

        Raises:
            RaceError: it cannot be read, the preset is unknown, or there is no such embedded task.
        """
        head, options = parse_call(text, "task")
        head, at, preset = (part.strip() for part in head.partition("@"))
        if at:
            check_preset(preset, f"task {text!r}: ")
        if ":" not in head and head not in BUILTIN:
            hint = (
                suggest(head, list(BUILTIN)) or f"; choose from {', '.join(BUILTIN)}, or give module:object"
            )
            raise RaceError(f"unknown task {head!r}{hint}")
        return cls(head, preset if at else None, options)

    def __str__(self) -> str:
        return write_call(self.head + (f"@{self.preset}" if self.preset else ""), self.options)

    @property
    def target(self) -> str:
        """The ``module:object`` that makes the task."""
        return BUILTIN.get(self.head, self.head)

    def load(self) -> Task:
        """Import the object and make the task.

        Raises:
            RaceError: it cannot be imported, is no task, or does not take the preset or the options.
        """
        made = self._object()
        if isinstance(made, Task):
            if self.options:
                raise RaceError(f"task {self.head!r} takes no options, got {', '.join(self.options)}")
            if self.preset not in (None, made.preset):
                raise RaceError(f"task {self.head!r} has no preset {self.preset!r}; leave out @{self.preset}")
            return made
        if not callable(made):
            raise RaceError(f"{self.head!r} is a {type(made).__name__}, not a steepest.race.Task")
        return _make(made, str(self))

    def has_presets(self) -> bool:
        """Say whether the object is a function that takes a preset."""
        made = self._object()
        return (
            not isinstance(made, Task) and callable(made) and "preset" in inspect.signature(made).parameters
        )

    def plain(self) -> TaskText:
        """Return the text without a preset that the task has anyway, so that its runs are called the same."""
        made = self._object()
        if isinstance(made, Task):
            usual = made.preset
        else:
            usual = inspect.signature(made).parameters["preset"].default if self.has_presets() else None
        return replace(self, preset=None) if self.preset == usual else self

    def _object(self) -> Any:
        module, _, attribute = self.target.partition(":")
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:
            raise _cannot_load(self.head, error) from None


@lru_cache(maxsize=64)
def _make(function: Callable[..., object], text: str) -> Task:
    """Call a function that makes a task; once per text, since every run asks for its task."""
    wanted = TaskText.parse(text)
    parameters = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    options = [name for name in parameters if name != "preset"]
    for name in wanted.options:
        if name == "preset":
            raise RaceError(f"task {wanted.head!r}: write the preset as {wanted.head}@full")
        if name not in options and not takes_all:
            hint = suggest(name, options) or (
                f"; it takes {', '.join(options)}" if options else "; it takes none"
            )
            raise RaceError(f"task {wanted.head!r}: unknown option {name!r}{hint}")
    if wanted.preset is not None and "preset" not in parameters:
        raise RaceError(f"task {wanted.head!r} has no presets; leave out @{wanted.preset}")
    preset = {"preset": wanted.preset} if wanted.preset else {}
    try:
        task = function(**preset, **wanted.options)
    except RaceError:
        raise
    except Exception as error:
        raise _cannot_load(text, error) from None
    if not isinstance(task, Task):
        raise RaceError(f"{wanted.head!r} made a {type(task).__name__}, not a steepest.race.Task")
    return replace(task, preset=wanted.preset) if wanted.preset else task


def load_task(text: str) -> Task:
    """Return the task of a text: ``name`` or ``module:object``, then ``@preset``, then ``(option=value)``.

    Raises:
        RaceError: there is no such task, preset or option, or the object is not a `Task`.

    Example:
        >>> from steepest.race.task_text import load_task
        >>> load_task("digits").batch_size
        64
    """
    return TaskText.parse(text).load()


def load_tasks(texts: Iterable[str], preset: str | None = None) -> dict[str, Task]:
    """Return tasks by the texts that name them, written in the one way of `TaskText`.

    Args:
        texts: what `load_task` reads.
        preset: for the tasks that have presets and whose text names none.

    Raises:
        RaceError: as in `load_task`, or two different tasks call themselves the same.
    """
    if preset is not None:
        check_preset(preset)
    parsed = [TaskText.parse(text) for text in texts]
    if preset is not None:
        parsed = [replace(t, preset=preset) if not t.preset and t.has_presets() else t for t in parsed]
    tasks = {str(text.plain()): text.load() for text in parsed}
    called = [task.name for task in tasks.values()]
    for name in called:
        if called.count(name) > 1:
            raise RaceError(f"two tasks are named {name!r}; race them apart, or give one another Task.name")
    return tasks


def _cannot_load(text: str, error: Exception) -> RaceError:
    return RaceError(one_line(f"cannot load task {text!r}: {type(error).__name__}: {error}"))
