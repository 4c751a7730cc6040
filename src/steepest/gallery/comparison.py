"""Several optimizers side by side: their paths over one surface, the spectra of their updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from steepest.gallery import style
from steepest.gallery.paths import STEPS, best_path, walk
from steepest.gallery.surface import draw_walk
from steepest.gallery.updates import SHAPE, last_update, spectrum
from steepest.optimizer import RuleOptimizer

COLUMNS = 3


def draw_paths(rates: Mapping[type[RuleOptimizer], float | None], path: str | Path) -> Path:
    """Draw the path of each optimizer over the curved valley of 2 x 2 matrices, three to a row.

    Args:
        rates: the learning rate of each optimizer; None is the best of 21.
        path: where the picture goes, and its format.

    Raises:
        ValueError: no optimizer, or a name that ends in none of .png, .svg and .pdf.
    """
    _some(rates)
    rows = -(-len(rates) // COLUMNS)
    made = style.figure(9.5, 2.8 * rows)
    panels = made.subplots(rows, COLUMNS, squeeze=False, sharex=True, sharey=True).flatten()
    for axes, (cls, lr) in zip(panels, rates.items(), strict=False):
        walked = best_path(cls) if lr is None else walk(cls, lr)
        draw_walk(axes, walked)
        style.title(axes, f"{cls.__name__}: lr {walked.lr:.2g}, loss {walked.loss:.1e}")
    for axes in panels[len(rates) :]:
        axes.remove()
    made.supxlabel(f"{STEPS} steps from the dot; the star is the minimum", fontsize=8, color=style.TEXT)
    return style.save(made, path)


def draw_spectra(classes: Sequence[type[RuleOptimizer]], path: str | Path) -> Path:
    """Draw the singular values of each optimizer's update after 20 gradients of one sort, and the gradient's.

    The gradients have singular values that fall as 1/k and columns that differ by a factor of 30.

    Raises:
        ValueError: no optimizer, or a name that ends in none of .png, .svg and .pdf.
    """
    _some(classes)
    made = style.figure(8, 4.2)
    axes = made.subplots()
    found = [(cls.__name__, *last_update(cls)) for cls in classes]
    axes.semilogy(spectrum(found[0][1]), color=style.LIGHT, linewidth=2.5, label="gradient")
    for k, (name, _, update) in enumerate(found):
        axes.semilogy(spectrum(update).clamp(min=1e-6), color=f"C{k % 10}", label=name)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    style.title(axes, f"singular values of updates of {SHAPE[0]} x {SHAPE[1]}, RMS 1")
    return style.save(made, path)


def _some(given: Sequence[object] | Mapping[type[RuleOptimizer], object]) -> None:
    if not given:
        raise ValueError("give at least one optimizer class to draw, got none")
