"""What an optimizer makes of one sort of gradient: a matrix with a steep spectrum and uneven columns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from steepest.catalogue import build
from steepest.optimizer import RuleOptimizer

SHAPE = (48, 64)
STEPS = 20
NOISE = 0.1


def gradient(generator: torch.Generator) -> Tensor:
    """Return a gradient: singular values 1/k, columns that differ by a factor of 30, and a tenth of noise."""
    rows, columns = SHAPE
    fixed = torch.Generator().manual_seed(7)
    left = torch.linalg.qr(torch.randn(rows, rows, generator=fixed, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(columns, columns, generator=fixed, dtype=torch.float64)).Q[:, :rows]
    values = 1 / torch.arange(1, rows + 1, dtype=torch.float64)
    uneven = torch.logspace(0, -1.5, columns, dtype=torch.float64)
    signal = (left * values) @ right.T * uneven
    noise = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
    return signal + NOISE * noise * signal.square().mean().sqrt()


def last_update(cls: type[RuleOptimizer], steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """Return the last of ``steps`` gradients and the update it led to, at lr = 1 and without decay."""
    torch.manual_seed(0)
    layer = nn.Linear(SHAPE[1], SHAPE[0], bias=False, dtype=torch.float64)
    optimizer = build(cls, layer, lr=1.0)
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    generator = torch.Generator().manual_seed(1)
    before = now = torch.empty(0)
    for _ in range(steps):
        before = layer.weight.detach().clone()
        now = gradient(generator)

        def closure(wanted: Tensor = now) -> Tensor:
            # <G, W> has the gradient G; the layer is called, so that K-FAC sees its input.
            optimizer.zero_grad()
            loss = (layer(torch.eye(SHAPE[1], dtype=torch.float64)).T * wanted).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    return now, layer.weight.detach() - before


def spectrum(update: Tensor) -> Tensor:
    """Return the singular values, divided by their root mean square."""
    values = torch.linalg.svdvals(update)
    return values / values.square().mean().sqrt()


def sizes(update: Tensor, dim: int) -> Tensor:
    """Return the lengths of rows (1) or columns (0), divided by their mean."""
    lengths = update.norm(dim=dim)
    return lengths / lengths.mean()
