"""Unit balls of the base norms, and the steepest step each allows."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from steepest.gallery import style
from steepest.gallery.plane import coordinates, matrix
from steepest.norms import Frobenius, Max, Norm, RowNorm, Spectral

NORMS: dict[str, Norm] = {
    "Frobenius: normalized SGD": Frobenius(),
    "Max: SignSGD": Max(),
    "Spectral: Muon": Spectral(orthogonalizer="svd"),
    "RowNorm": RowNorm(),
}
GRADIENT = (1.0, 0.35)


def boundary(norm: Norm, points: int = 721) -> Tensor:
    """Return points (points, 2) of the plane at which the norm is 1."""
    angle = torch.linspace(0, 2 * math.pi, points, dtype=torch.float64)
    x, y = angle.cos(), angle.sin()
    size = norm.value(matrix(x, y)).flatten()
    return torch.stack([x / size, y / size], -1)


def steepest_point(norm: Norm, gradient: tuple[float, float] = GRADIENT) -> tuple[float, float]:
    """Return the point of the ball that goes furthest along the gradient."""
    x, y = torch.tensor(gradient, dtype=torch.float64)
    found = coordinates(norm.direction(matrix(x, y)[None])[0])
    return found[0].item(), found[1].item()


def draw_balls(path: str | Path) -> Path:
    """Draw each ball in the plane of matrices [[x, y], [y, x]], a gradient, and its steepest step."""
    made = style.figure(11, 3.1)
    for axes, (name, norm) in zip(made.subplots(1, len(NORMS), sharey=True), NORMS.items(), strict=True):
        edge = boundary(norm)
        axes.fill(edge[:, 0], edge[:, 1], color=style.FIRST, alpha=0.12)
        axes.plot(edge[:, 0], edge[:, 1], color=style.FIRST)
        x, y = steepest_point(norm)
        reach = x * GRADIENT[0] + y * GRADIENT[1]
        across = torch.tensor([-2.0, 2.0])
        scale = GRADIENT[0] ** 2 + GRADIENT[1] ** 2
        axes.plot(  # where <G, X> is as large as the ball allows
            reach * GRADIENT[0] / scale - across * GRADIENT[1],
            reach * GRADIENT[1] / scale + across * GRADIENT[0],
            color=style.LIGHT,
            linestyle=":",
        )
        arrow = {"arrowstyle": "-|>", "linewidth": 1.6}
        axes.annotate("", GRADIENT, (0, 0), arrowprops={**arrow, "color": style.LIGHT, "linestyle": "--"})
        axes.annotate("", (x, y), (0, 0), arrowprops={**arrow, "color": style.SECOND})
        axes.plot([x], [y], "o", color=style.SECOND, markersize=5)
        axes.set(xlim=(-1.35, 1.35), ylim=(-1.35, 1.35), aspect="equal")
        style.title(axes, name)
    made.supxlabel(
        "matrices [[x, y], [y, x]]; dashed: gradient G, arrow: steepest step u(G), dotted: <G, X> = |G|*",
        fontsize=8,
        color=style.LIGHT,
    )
    return style.save(made, path)
