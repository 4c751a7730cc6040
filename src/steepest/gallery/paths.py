"""The path of an optimizer over a curved valley, at the rate that is best for it there."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steepest.catalogue import build
from steepest.gallery.plane import coordinates, matrix
from steepest.optimizer import RuleOptimizer

START = (-1.2, 1.0)
GOAL = (1.0, 1.0)
STEPS = 150
RATES = tuple(10 ** (-k / 4) for k in range(-4, 17))
"""Rates tried: 10 down to 1e-4, four to a decade, the same for every method."""


@dataclass(frozen=True)
class Path:
    """Where an optimizer went: points (steps + 1, 2), its rate, and the loss at the end."""

    points: Tensor
    lr: float
    loss: float


class Valley(nn.Module):
    """Rosenbrock's function (1 - x)^2 + 10 (y - x^2)^2 of the matrix [[x, y], [y, x]] as a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2, bias=False, dtype=torch.float64)
        with torch.no_grad():
            x, y = torch.tensor(START, dtype=torch.float64)
            self.layer.weight.copy_(matrix(x, y))

    def forward(self) -> Tensor:
        """Return the loss; the layer is called, so that K-FAC sees its input."""
        return height(*coordinates(self.layer(torch.eye(2, dtype=torch.float64)).T))


def height(x: Tensor, y: Tensor) -> Tensor:
    """Return the loss at coordinates of any equal shape."""
    return (1 - x) ** 2 + 10 * (y - x * x) ** 2


def walk(cls: type[RuleOptimizer], lr: float, steps: int = STEPS) -> Path:
    """Return the path of an optimizer at its defaults, its rate falling linearly to zero.

    Only a ``threshold`` below which matrices are not treated as such is lifted: all of these are 2 x 2.
    """
    torch.manual_seed(0)
    valley = Valley()
    weight = valley.layer.weight
    lifted = {"threshold": 0} if "threshold" in inspect.signature(cls).parameters else {}
    optimizer = build(cls, valley, lr=lr, **lifted)
    points = [weight.detach().clone()]
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = valley()
            loss.backward()
            return loss

        try:
            optimizer.step(closure)
        except (FloatingPointError, torch.linalg.LinAlgError):
            break
        points.append(weight.detach().clone())
    stacked = torch.stack(coordinates(torch.stack(points)), -1)
    loss = height(*stacked[-1]).item() if len(points) == steps + 1 else float("inf")
    return Path(stacked, lr, loss if loss == loss else float("inf"))


def best_path(cls: type[RuleOptimizer]) -> Path:
    """Return the path that ends lowest, of equals the one with the smaller rate."""
    return min((walk(cls, lr) for lr in RATES), key=lambda path: (path.loss, path.lr))
