"""The training loop of a run, and what it measures on its way."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch

from steepest.race.engine import Engine
from steepest.race.hopeless import why_hopeless
from steepest.race.parallel import ALONE, Alone
from steepest.race.side import Side
from steepest.race.spec import RunSpec
from steepest.race.task import Task
from steepest.race.twin import Twin

EVALUATIONS = 16


class Loop:
    """Trains one run; what it has measured so far is readable after an exception too.

    ``pass_seconds`` and ``step_seconds`` are per step, in forward and backward (with clipping) and in the
    optimizer; drawing batches, moving them and evaluating are in neither. ``deviation`` is the largest
    difference between the training losses of a task and its twin, as a part of the first loss; None without
    a twin.
    """

    def __init__(self, spec: RunSpec, replicas: Alone = ALONE) -> None:
        self.spec = spec
        self.replicas = replicas
        self.step = 0
        self.side: Side | None = None
        self.losses: list[float] = []
        self.twin_losses: list[float] = []
        self.deviation: float | None = None
        self.val_curve: list[tuple[int, float]] = []
        self.metrics: Mapping[str, float] = {}
        self.pass_seconds: list[float] = []
        self.step_seconds: list[float] = []

    def go(self, task: Task) -> tuple[str, str | None]:
        """Train; return the status, "ok", "diverged" or "stopped", and in words why it is not "ok"."""
        spec = self.spec
        spec.engine.require_device()
        _reset_peak_memory(spec.engine)
        data = task.data()
        torch.manual_seed(spec.seed)
        model = task.model(data)
        twin = task.twin(data, model) if task.twin else None
        side = self.side = Side(spec, task, data, model, self.replicas)
        other = Twin(Side(spec, task, *twin, self.replicas)) if twin else None
        self.deviation = 0.0 if other else None
        evaluate_every = max(1, spec.steps // EVALUATIONS)
        self._evaluate(side)
        for self.step in range(1, spec.steps + 1):
            if not math.isfinite(self._train(side)):
                return "diverged", f"loss not finite at step {self.step}"
            if other is not None:
                self._compare(other.train())
            if self.step % evaluate_every == 0 or self.step == spec.steps:
                self._evaluate(side)
                if spec.stops_if_hopeless and (why := why_hopeless(self.val_curve, spec.steps)):
                    return "stopped", why
        if not math.isfinite(self.metrics["val_loss"]):
            return "diverged", f"validation loss not finite after step {self.step}"
        if self.deviation is not None:
            self.metrics = {**self.metrics, "deviation": self.deviation}
        return "ok", None

    def _train(self, side: Side) -> float:
        batch = side.next_batch()
        begin = self._now()
        loss = side.backward(batch)
        middle = self._now()
        self.losses.append(self.replicas.mean(loss.item()))
        if math.isfinite(self.losses[-1]):
            before_step = self._now()
            side.optimizer.step()
            self.step_seconds.append(self._now() - before_step)
            self.pass_seconds.append(middle - begin)
            side.schedule.step()
        return self.losses[-1]

    def _compare(self, twin_loss: float) -> None:
        """Keep the largest difference of the two losses; a twin that diverges is infinitely far.

        As a part of the first loss: beside a loss that falls to nothing, rounding would look large.
        """
        self.twin_losses.append(twin_loss)
        gap = abs(self.losses[-1] - twin_loss) / max(abs(self.losses[0]), sys.float_info.min)
        self.deviation = max(self.deviation or 0.0, gap if math.isfinite(gap) else math.inf)

    def _evaluate(self, side: Side) -> None:
        model = side.model
        model.eval()
        _switch(side.optimizer, "eval")
        with torch.no_grad(), side.engine.precision():
            metrics = side.task.evaluate(model, side.data)
        metrics = {name: float(value) for name, value in metrics.items()}
        self.metrics = self.replicas.agree(metrics, model)
        model.train()
        _switch(side.optimizer, "train")
        if "val_loss" not in self.metrics:
            raise ValueError(f"evaluate must return 'val_loss', got {', '.join(self.metrics) or 'nothing'}")
        self.val_curve.append((self.step, self.metrics["val_loss"]))

    def _now(self) -> float:
        if self.spec.engine.device != "cpu":
            torch.accelerator.synchronize(torch.device(self.spec.engine.device))
        return time.perf_counter()

    def state_bytes(self) -> int:
        """Return the bytes of the optimizer's state."""
        return 0 if self.side is None else sum(map(_tensor_bytes, self.side.optimizer.state.values()))

    def peak_memory_bytes(self) -> int | None:
        """Return the most that tensors took on a CUDA device; None on others, where torch does not count."""
        device = torch.device(self.spec.engine.device)
        if device.type != "cuda" or self.side is None or self.deviation is not None:
            return None
        return torch.cuda.max_memory_allocated(device)


def _switch(optimizer: torch.optim.Optimizer, mode: str) -> None:
    """Let an optimizer that evaluates other weights than it trains (SPlus) exchange them."""
    if callable(change := getattr(optimizer, mode, None)):
        change()


def _reset_peak_memory(engine: Engine) -> None:
    device = torch.device(engine.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _tensor_bytes(state: Any) -> int:
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(_tensor_bytes(item) for item in state.values())
    if isinstance(state, list | tuple):
        return sum(_tensor_bytes(item) for item in state)
    return 0
