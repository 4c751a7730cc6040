"""One picture of an optimizer: its path, the spectrum of its updates, the sizes of their rows and columns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from steepest.gallery import style
from steepest.gallery.paths import STEPS, best_path, walk
from steepest.gallery.surface import draw_walk
from steepest.gallery.updates import SHAPE, last_update, sizes, spectrum
from steepest.optimizer import RuleOptimizer

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_portrait(cls: type[RuleOptimizer], path: str | Path, lr: float | None = None) -> Path:
    """Draw an optimizer of the library at its defaults and return where the picture is.

    Left, its path over a curved valley of 2 x 2 matrices, at ``lr`` or at the best of 21 rates. Middle, the
    singular values of a gradient and of the update it leads to. Right, the lengths of their columns and rows.

    Raises:
        ValueError: the name ends in none of .png, .svg and .pdf.
    """
    made = style.figure(9.5, 3.1)
    first, second, third = made.subplots(1, 3)
    _path(first, cls, lr)
    gradient, update = last_update(cls)
    _spectra(second, gradient, update)
    _sizes(third, gradient, update)
    made.suptitle(cls.__name__, x=0.01, ha="left", fontsize=11, color=style.INK)
    return style.save(made, path)


def _path(axes: Axes, cls: type[RuleOptimizer], lr: float | None) -> None:
    walked = best_path(cls) if lr is None else walk(cls, lr)
    draw_walk(axes, walked)
    style.title(axes, f"{STEPS} steps at lr {walked.lr:.2g}, loss {walked.loss:.1e}")


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
