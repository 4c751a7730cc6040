"""How orthogonal the steps of Muon are: ours and torch's from the same gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import Parameter

import steepest
from steepest.bench.sets import Shape

SHAPES: tuple[Shape, ...] = ((512, 512), (1536, 512), (512, 2048))
MAKERS: dict[str, Callable[[list[Parameter]], torch.optim.Optimizer]] = {
    "steepest Muon": lambda p: steepest.Muon(p, lr=1.0),
    "torch Muon": lambda p: torch.optim.Muon(p, lr=1.0, weight_decay=0.0),
}


@torch.no_grad()
def deviations(device: torch.device, shapes: Sequence[Shape] = SHAPES) -> list[dict[str, Any]]:
    """Return, for Gaussian gradients, how far the singular values of a first step are from 1.

    The weight starts at zero, so that it is the step after one; the step is divided by the shape's scale
    sqrt(max(1, m/n)). ``rms`` is the root mean square of (singular value - 1), ``worst`` the largest.
    """
    found = []
    for shape in shapes:
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
        for name, make in MAKERS.items():
            param = Parameter(torch.zeros(shape, device=device))
            param.grad = gradient.clone()
            make([param]).step()
            values = torch.linalg.svdvals(param.double().cpu()) / math.sqrt(max(1.0, shape[0] / shape[1]))
            error = (values - 1).abs()
            found.append(
                {
                    "name": name,
                    "shape": list(shape),
                    "rms": float(f"{error.square().mean().sqrt():.3g}"),
                    "worst": float(f"{error.max():.3g}"),
                }
            )
    return found
