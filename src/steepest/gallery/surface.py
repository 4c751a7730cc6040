"""The curved valley drawn as contour lines, and a path over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from steepest.gallery import style
from steepest.gallery.paths import GOAL, START, Path, height

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ACROSS, UPWARDS = (-1.8, 1.8), (-0.9, 2.1)


def draw_walk(axes: Axes, walked: Path) -> None:
    """Draw contour lines, the points of a path with lines between, its start and its goal."""
    x, y = torch.meshgrid(torch.linspace(*ACROSS, 121), torch.linspace(*UPWARDS, 101), indexing="xy")
    levels = [10 ** (k / 2) for k in range(-3, 5)]
    axes.contour(x, y, height(x, y), levels=levels, colors=style.LIGHT, linewidths=0.5, alpha=0.6)
    points = walked.points
    axes.plot(points[:, 0], points[:, 1], ".-", color=style.FIRST, linewidth=1, markersize=3)
    axes.plot(*START, "o", color=style.INK, markersize=5)
    axes.plot(*GOAL, "*", color=style.SECOND, markersize=11)
    axes.set(xlim=ACROSS, ylim=UPWARDS)
