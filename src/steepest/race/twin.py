"""The same problem in other coordinates, trained beside a run; see ``Task.twin``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from steepest.race.side import Side


class Twin:
    """The other side, with random numbers of its own: the same ones, where a model draws any."""

    def __init__(self, side: Side) -> None:
        self._side = side
        device = torch.device(side.engine.device)
        self._cuda: list[int] = []
        if device.type == "cuda":
            self._cuda = [torch.cuda.current_device() if device.index is None else device.index]
        self._state = torch.get_rng_state()
        self._cuda_state = [torch.cuda.get_rng_state(index) for index in self._cuda]

    def train(self) -> float:
        """Take a step; return the loss before it, and NaN for good once it has diverged."""
        with self._randomness():
            loss = self._side.backward(self._side.next_batch()).item()
            loss = self._side.replicas.mean(loss)
            if math.isfinite(loss):
                self._side.optimizer.step()
                self._side.schedule.step()
        return loss

    @contextmanager
    def _randomness(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=self._cuda):
            torch.set_rng_state(self._state)
            for index, state in zip(self._cuda, self._cuda_state, strict=True):
                torch.cuda.set_rng_state(state, index)
            yield
            self._state = torch.get_rng_state()
            self._cuda_state = [torch.cuda.get_rng_state(index) for index in self._cuda]
