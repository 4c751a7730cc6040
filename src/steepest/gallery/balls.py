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
"""The base norms and the methods that step to their balls."""
GRADIENT = (1.0, 0.35)
PLAIN = (1.0, 1.0)


def boundary(norm: Norm, scale: tuple[float, float] = PLAIN, points: int = 721) -> Tensor:
    """Return points X (points, 2) of the plane at which the norm of D * X is 1, for D = scale."""
    angle = torch.linspace(0, 2 * math.pi, points, dtype=torch.float64)
    x, y = angle.cos(), angle.sin()
    size = norm.value(matrix(x, y)).flatten()
    return torch.stack([x / size / scale[0], y / size / scale[1]], -1)


def steepest_point(
    norm: Norm, gradient: tuple[float, float] = GRADIENT, scale: tuple[float, float] = PLAIN
) -> tuple[float, float]:
    """Return the point of the ball of |D * X| that goes furthest along the gradient, for D = scale."""
    x, y = torch.tensor(gradient, dtype=torch.float64)
    found = coordinates(norm.direction(matrix(x / scale[0], y / scale[1])[None])[0])
    return found[0].item() / scale[0], found[1].item() / scale[1]


def draw_balls(path: str | Path, scale: tuple[float, float] = PLAIN) -> Path:
    """Draw each ball in the plane of matrices [[x, y], [y, x]], a gradient, and its steepest step.

    With a ``scale`` (a, b), norms are taken of D * X for D = [[a, b], [b, a]]: the same balls in the
    coordinates of a diagonal preconditioner. Both must be at least 1, so that the balls fit the picture.

    Raises:
        ValueError: a scale below 1, or a name that ends in none of .png, .svg and .pdf.
    """
    if min(scale) < 1:
        raise ValueError(f"scale must be two numbers >= 1, got {scale!r}")
    made = style.figure(9.5, 3.1)
    for axes, (name, norm) in zip(made.subplots(1, len(NORMS), sharey=True), NORMS.items(), strict=True):
        edge = boundary(norm, scale)
        axes.fill(edge[:, 0], edge[:, 1], color=style.FIRST, alpha=0.12)
        axes.plot(edge[:, 0], edge[:, 1], color=style.FIRST)
        x, y = steepest_point(norm, scale=scale)
        reach = x * GRADIENT[0] + y * GRADIENT[1]
        across = torch.tensor([-2.0, 2.0])
        squared = GRADIENT[0] ** 2 + GRADIENT[1] ** 2
        axes.plot(  # where <G, X> is as large as the ball allows
            reach * GRADIENT[0] / squared - across * GRADIENT[1],
            reach * GRADIENT[1] / squared + across * GRADIENT[0],
            color=style.LIGHT,
            linestyle=":",
        )
        arrow = {"arrowstyle": "-|>", "linewidth": 1.6}
        axes.annotate("", GRADIENT, (0, 0), arrowprops={**arrow, "color": style.LIGHT, "linestyle": "--"})
        axes.annotate("", (x, y), (0, 0), arrowprops={**arrow, "color": style.SECOND})
        axes.plot([x], [y], "o", color=style.SECOND, markersize=5)
        axes.set(xlim=(-1.35, 1.35), ylim=(-1.35, 1.35), aspect="equal")
        style.title(axes, name if scale == PLAIN else name.partition(":")[0])
    where = "" if scale == PLAIN else f" in coordinates D = [[{scale[0]:g}, {scale[1]:g}], ...]"
    made.supxlabel(
        f"matrices [[x, y], [y, x]]{where}; dashed: gradient G, arrow: steepest step, dotted: <G, X> = |G|*",
        fontsize=8,
        color=style.TEXT,
    )
    return style.save(made, path)
