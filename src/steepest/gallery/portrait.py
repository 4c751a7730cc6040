"""One picture of an optimizer: its path, the spectrum of its updates, the sizes of their rows and columns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from steepest.gallery import style
from steepest.gallery.paths import GOAL, START, STEPS, best_path, height
from steepest.gallery.updates import SHAPE, last_update, sizes, spectrum
from steepest.optimizer import RuleOptimizer

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_portrait(cls: type[RuleOptimizer], path: str | Path) -> Path:
    """Draw an optimizer of the library at its defaults and return where the picture is.

    Left, its path over a curved valley of 2 x 2 matrices at the best of 21 rates. Middle, the singular values
    of a gradient and of the update it leads to. Right, the lengths of their columns and rows.

    Raises:
        ValueError: the name ends in none of .png, .svg and .pdf.
    """
    made = style.figure(11, 3.4)
    first, second, third = made.subplots(1, 3)
    _path(first, cls)
    gradient, update = last_update(cls)
    _spectra(second, gradient, update)
    _sizes(third, gradient, update)
    made.suptitle(cls.__name__, x=0.01, ha="left", fontsize=12, color=style.INK)
    return style.save(made, path)


def _path(axes: Axes, cls: type[RuleOptimizer]) -> None:
    x, y = torch.meshgrid(torch.linspace(-1.8, 1.8, 181), torch.linspace(-0.9, 2.1, 151), indexing="xy")
    levels = [10 ** (k / 2) for k in range(-3, 5)]
    axes.contour(x, y, height(x, y), levels=levels, colors=style.LIGHT, linewidths=0.5, alpha=0.6)
    found = best_path(cls)
    points = found.points
    axes.plot(points[:, 0], points[:, 1], "-", color=style.FIRST, linewidth=1)
    axes.plot(points[:, 0], points[:, 1], ".", color=style.FIRST, markersize=2.5)
    axes.plot(*START, "o", color=style.INK, markersize=5)
    axes.plot(*GOAL, "*", color=style.SECOND, markersize=11)
    axes.set(xlim=(-1.8, 1.8), ylim=(-0.9, 2.1))
    style.title(axes, f"{STEPS} steps at lr {found.lr:.2g}, loss {found.loss:.1e}")


def _spectra(axes: Axes, gradient: Tensor, update: Tensor) -> None:
    axes.semilogy(spectrum(gradient), color=style.LIGHT, linestyle="--", label="gradient")
    axes.semilogy(spectrum(update).clamp(min=1e-6), color=style.FIRST, label="update")
    axes.legend(fontsize=8, frameon=False)
    style.title(axes, f"singular values of {SHAPE[0]} x {SHAPE[1]}, RMS 1")


def _sizes(axes: Axes, gradient: Tensor, update: Tensor) -> None:
    for dim, name, line in ((0, "columns", "-"), (1, "rows", ":")):
        axes.semilogy(sizes(gradient, dim), color=style.LIGHT, linestyle=line, label=f"{name} of gradient")
        axes.semilogy(sizes(update, dim), color=style.FIRST, linestyle=line, label=f"{name} of update")
    axes.legend(fontsize=7, frameon=False)
    style.title(axes, "lengths of rows and columns, mean 1")
