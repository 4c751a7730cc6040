"""Optimizers that keep an average of the weights, and put it into the model for evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from steepest import averaging
from steepest.optimizer import RuleOptimizer


class AveragingOptimizer(RuleOptimizer):
    """Base of optimizers whose rule has ``average``: ``eval()`` and ``train()`` exchange the two.

    The group key ``averaged`` says which of the two the parameters hold. It is saved, so that a checkpoint
    taken in evaluation resumes after ``train()``.
    """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; raise while the parameters hold the averages."""
        if any(group["averaged"] for group in self.param_groups):
            raise RuntimeError("the parameters hold their averages: call optimizer.train() before step()")
        return super().step(closure)

    def eval(self) -> None:
        """Put the averages into the parameters."""
        self._hold(True)

    def train(self, mode: bool = True) -> None:
        """Put the training weights back into the parameters; with ``mode=False``, the averages."""
        self._hold(not mode)

    @torch.no_grad()
    def _hold(self, averages: bool) -> None:
        for group in self.param_groups:
            if group["averaged"] != averages:
                for param in group["params"]:
                    averaging.exchange_(param, self.state.get(param, {}))
                group["averaged"] = averages
