"""One run: a task, an optimizer, a learning rate and a seed in, a record out.

The learning rate rises linearly over the first twentieth of the steps and then falls linearly to zero; the
schedule scales every parameter group alike, the auxiliary ones of a hybrid too.
"""

from __future__ import annotations

import math
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from statistics import median
from typing import Any

import torch
from torch import nn

from steepest.race.contenders import Contender, parse_contender
from steepest.race.provenance import code_fingerprint, hardware, loop_fingerprint, versions
from steepest.race.records import CURVE_POINTS, Curve, RunRecord, run_key, thin
from steepest.race.task import BUILTIN, Task, load_task, one_line

WARMUP = 0.05
EVALUATIONS = 16
SCHEDULE = f"linear warm-up over {WARMUP:.0%} of the steps, then linear decay to zero"


@dataclass(frozen=True)
class RunSpec:
    """A run to be done, as plain data that can be sent to any process.

    ``task`` and ``contender`` are texts that `load_task` and `parse_contender` read; ``name`` is the
    contender's name in tables.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)


def make_spec(
    task_name: str,
    task: Task,
    contender: Contender,
    *,
    lr: float,
    aux_lr: float | None,
    seed: int,
    phase: str,
    steps: int,
) -> RunSpec:
    """Describe a run; its key covers task, optimizer, settings, and the code and torch behind them."""
    key = run_key(
        task=task_name,
        task_version=task.version,
        task_code=code_fingerprint(BUILTIN.get(task_name, task_name)),
        loop=loop_fingerprint(),
        settings=_settings(task),
        target=contender.target,
        kwargs=contender.kwargs,
        code=code_fingerprint(contender.target),
        torch=versions()["torch"],
        lr=lr,
        aux_lr=aux_lr,
        seed=seed,
        steps=steps,
    )
    return RunSpec(key, task_name, contender.text, contender.name, lr, aux_lr, seed, phase, steps)


def record_of(spec: RunSpec, status: str, **outcome: Any) -> RunRecord:
    """Fill a record with what is known of a run before it starts, and with its outcome."""
    task, contender = load_task(spec.task), parse_contender(spec.contender)
    return RunRecord(
        key=spec.key,
        task=task.name,
        task_version=task.version,
        optimizer=spec.name,
        target=contender.target,
        kwargs=contender.kwargs,
        lr=spec.lr,
        aux_lr=spec.aux_lr,
        seed=spec.seed,
        phase=spec.phase,
        steps=spec.steps,
        status=status,
        versions=versions(),
        hardware=hardware(),
        settings={"description": task.description, "target": task.target, **_settings(task)},
        **outcome,
    )


def train(spec: RunSpec) -> RunRecord:
    """Do a run. Whatever the task or the optimizer raises ends in the record, not in an exception."""
    run = _Run(spec)
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    try:
        error = run.go()
        status = "diverged" if error else "ok"
    except (Exception, SystemExit) as raised:
        traceback.print_exc(file=sys.stderr)
        what = one_line(f"{type(raised).__name__}: {raised}".rstrip(": "))
        if run.has_nonfinite_gradient():
            status, error = "diverged", f"gradient not finite at step {run.step} ({what})"
        else:
            place = f"step {run.step}" if run.step else "before the first step"
            status, error = "failed", f"{what} ({place})"
    metrics = run.metrics if status == "ok" else {}
    return record_of(
        spec,
        status,
        error=error,
        train_curve=_bin_means(run.losses),
        val_curve=thin(run.val_curve),
        metrics=metrics,
        final_loss=metrics.get("val_loss", math.inf),
        seconds=sum(run.pass_seconds) + sum(run.step_seconds),
        step_ms=1e3 * median(run.step_seconds) if run.step_seconds else None,
        fwd_bwd_ms=1e3 * median(run.pass_seconds) if run.pass_seconds else None,
        state_bytes=run.state_bytes(),
        param_count=sum(p.numel() for p in run.trainable()),
        started=started,
    )


class _Run:
    """The training loop and what it has measured so far, readable after an exception too."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.step = 0
        self.model: nn.Module | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.losses: list[float] = []
        self.val_curve: list[tuple[int, float]] = []
        self.metrics: Mapping[str, float] = {}
        self.pass_seconds: list[float] = []
        self.step_seconds: list[float] = []

    def go(self) -> str | None:
        """Train; return None, or in words how the run diverged."""
        spec = self.spec
        task = load_task(spec.task)
        data = task.data()
        torch.manual_seed(spec.seed)
        model = self.model = task.model(data)
        optimizer = self.optimizer = parse_contender(spec.contender).build(model, task, spec.lr, spec.aux_lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: _lr_factor(t, spec.steps))
        batches = torch.Generator().manual_seed(spec.seed)
        evaluate_every = max(1, spec.steps // EVALUATIONS)
        self._evaluate(task, data)
        for self.step in range(1, spec.steps + 1):
            batch = task.batch(data, batches, task.batch_size)
            optimizer.zero_grad()
            begin = time.perf_counter()
            loss = task.loss(model, batch)
            loss.backward()
            middle = time.perf_counter()
            self.losses.append(loss.item())
            if not math.isfinite(self.losses[-1]):
                return f"loss not finite at step {self.step}"
            before_step = time.perf_counter()
            optimizer.step()
            self.step_seconds.append(time.perf_counter() - before_step)
            self.pass_seconds.append(middle - begin)
            schedule.step()
            if self.step % evaluate_every == 0 or self.step == spec.steps:
                self._evaluate(task, data)
        if not math.isfinite(self.metrics["val_loss"]):
            return f"validation loss not finite after step {self.step}"
        return None

    def _evaluate(self, task: Task, data: Any) -> None:
        assert self.model is not None
        self.model.eval()
        self._switch("eval")
        with torch.no_grad():
            self.metrics = {name: float(value) for name, value in task.evaluate(self.model, data).items()}
        self.model.train()
        self._switch("train")
        if "val_loss" not in self.metrics:
            raise ValueError(f"evaluate must return 'val_loss', got {', '.join(self.metrics) or 'nothing'}")
        self.val_curve.append((self.step, self.metrics["val_loss"]))

    def _switch(self, mode: str) -> None:
        """Let an optimizer that evaluates other weights than it trains (SPlus) exchange them."""
        if callable(change := getattr(self.optimizer, mode, None)):
            change()

    def trainable(self) -> list[nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad] if self.model is not None else []

    def has_nonfinite_gradient(self) -> bool:
        return any(p.grad is not None and not p.grad.isfinite().all() for p in self.trainable())

    def state_bytes(self) -> int:
        if self.optimizer is None:
            return 0
        return sum(_tensor_bytes(state) for state in self.optimizer.state.values())


def _tensor_bytes(state: Any) -> int:
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(_tensor_bytes(item) for item in state.values())
    if isinstance(state, list | tuple):
        return sum(_tensor_bytes(item) for item in state)
    return 0


def _lr_factor(done: int, steps: int) -> float:
    warmup = max(1, round(WARMUP * steps))
    return min(1.0, (done + 1) / warmup) * (1 - done / steps)


def _bin_means(losses: list[float]) -> Curve:
    """Average a noisy curve over equal bins, each told by its last step."""
    width = math.ceil(len(losses) / CURVE_POINTS) or 1
    bins = [losses[i : i + width] for i in range(0, len(losses), width)]
    return tuple((min((i + 1) * width, len(losses)), sum(b) / len(b)) for i, b in enumerate(bins))


def _settings(task: Task) -> dict[str, Any]:
    return {"batch_size": task.batch_size, "schedule": SCHEDULE, **task.settings}
