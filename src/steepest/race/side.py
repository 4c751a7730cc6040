"""What is trained in a run: a model with its optimizer, schedule and batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from steepest.race.contenders import parse_contender
from steepest.race.engine import part_of_batch, to_device
from steepest.race.parallel import Alone
from steepest.race.schedules import lr_factor
from steepest.race.spec import RunSpec
from steepest.race.task import Task


class Side:
    """A model with its optimizer, schedule and batches; a run has one, or two where the task has a twin."""

    def __init__(self, spec: RunSpec, task: Task, data: Any, model: nn.Module, replicas: Alone) -> None:
        self.task = task
        self.data = data
        self.engine = spec.engine
        self.batch_size = spec.batch_size
        self.model = model.to(spec.engine.device)
        self.optimizer = parse_contender(spec.contender).build(self.model, task, spec.lr, spec.aux_lr)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda t: lr_factor(t, spec.steps, str(spec.engine.schedule), float(spec.engine.warmup or 0)),
        )
        self.batches = torch.Generator().manual_seed(spec.seed)
        if spec.engine.compile:
            self.model.compile()
        self.replicas = replicas
        self._trained = replicas.wrap(self.model)

    def next_batch(self) -> Any:
        """Draw a batch and bring it to the device."""
        return to_device(self.task.batch(self.data, self.batches, self.batch_size), self.engine.device)

    def backward(self, batch: Any) -> torch.Tensor:
        """Leave the gradients of a batch; return its loss."""
        self.optimizer.zero_grad()
        parts, losses = self.engine.accumulate, []
        everywhere = parts * self.replicas.count
        for index in range(parts):
            number = index * self.replicas.count + self.replicas.rank
            with self.replicas.passes(self._trained, last=index == parts - 1):
                with self.engine.precision():
                    part = part_of_batch(batch, number, everywhere, self.batch_size)
                    loss = self.task.loss(self._trained, part)
                (loss if parts == 1 else loss / parts).backward()
            losses.append(loss.detach())
        if self.engine.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.trainable(), self.engine.clip)
        return losses[0] if parts == 1 else torch.stack(losses).mean()

    def trainable(self) -> list[nn.Parameter]:
        """Return the parameters that are trained."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def has_nonfinite_gradient(self) -> bool:
        """Say whether a gradient holds an infinity or a NaN."""
        return any(p.grad is not None and not p.grad.isfinite().all() for p in self.trainable())
