"""What determines a run, as plain data that can be sent to any process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from steepest.race.contenders import Contender
from steepest.race.engine import Engine
from steepest.race.provenance import code_fingerprint, loop_fingerprint, versions
from steepest.race.records import run_key
from steepest.race.task import Task
from steepest.race.task_text import TaskText


@dataclass(frozen=True)
class RunSpec:
    """A run to be done.

    ``task`` and ``contender`` are texts that `load_task` and `parse_contender` read; ``name`` is the
    contender's name in tables. ``engine`` says schedule and warm-up too, never None here. ``same_as`` is the
    key of a run that is the same but for its phase, whose record serves for this one too, or "".
    """

    key: str
    task: str
    contender: str
    name: str
    lr: float
    aux_lr: float | None
    seed: int
    phase: str
    steps: int
    batch_size: int
    engine: Engine = field(default_factory=Engine)
    protocol: str = "fair"
    stops_if_hopeless: bool = False
    same_as: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> RunSpec:
        """Read what `to_dict` gave."""
        return cls(**{**fields, "engine": Engine(**fields["engine"])})


def make_spec(
    task_text: str,
    task: Task,
    contender: Contender,
    *,
    lr: float,
    aux_lr: float | None,
    seed: int,
    phase: str,
    steps: int,
    batch_size: int | None = None,
    engine: Engine | None = None,
    protocol: str = "fair",
    stops_if_hopeless: bool = False,
) -> RunSpec:
    """Describe a run; its key covers task, optimizer, settings, and the code and torch behind them.

    Where nothing is said, batch size, schedule and warm-up are the task's.
    """
    engine = resolve_engine(engine or Engine(), task)
    batch_size = batch_size or task.batch_size
    key = run_key(
        task=task_text,
        task_version=task.version,
        task_code=code_fingerprint(TaskText.parse(task_text).target),
        loop=loop_fingerprint(),
        settings=task.settings,
        batch_size=batch_size,
        engine=engine.to_dict(),
        protocol=protocol,
        stops_if_hopeless=stops_if_hopeless,
        target=contender.target,
        kwargs=contender.kwargs,
        code=code_fingerprint(contender.target),
        torch=versions()["torch"],
        lr=lr,
        aux_lr=aux_lr,
        seed=seed,
        steps=steps,
    )
    return RunSpec(
        key=key,
        task=task_text,
        contender=contender.text,
        name=contender.name,
        lr=lr,
        aux_lr=aux_lr,
        seed=seed,
        phase=phase,
        steps=steps,
        batch_size=batch_size,
        engine=engine,
        protocol=protocol,
        stops_if_hopeless=stops_if_hopeless,
    )


def resolve_engine(engine: Engine, task: Task) -> Engine:
    """Return the engine with the task's schedule and warm-up where it leaves them open."""
    return replace(
        engine,
        schedule=engine.schedule or task.schedule,
        warmup=task.warmup if engine.warmup is None else engine.warmup,
    )
