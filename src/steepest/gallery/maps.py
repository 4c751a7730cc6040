"""What equilibration does to a gradient: its entries, and the lengths of its rows and columns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from steepest.gallery import style
from steepest.gallery.updates import SHAPE, gradient, sizes
from steepest.preconditioners import Equilibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

FLOOR, CEILING = -2.0, 1.0
"""Decades of |entry| over the root mean square that the colours cover."""


def equilibrated(g: Tensor) -> Tensor:
    """Return a gradient (m, n) divided by the sum of its row and column lengths, entry by entry."""
    return Equilibration().prepare(g[None], {}, {"eps": 0.0}).solve(g[None])[0]


def draw_equilibration(path: str | Path) -> Path:
    """Draw a gradient with uneven rows and columns before and after ANDI's division.

    Colours are log10 of |entry| over the root mean square; the curves above and beside are the lengths of
    columns and rows, divided by their mean, on logarithmic axes that both panels share.

    Raises:
        ValueError: the name ends in none of .png, .svg and .pdf.
    """
    uneven = torch.logspace(-0.5, 0.5, SHAPE[0], dtype=torch.float64)[:, None]
    g = gradient(torch.Generator().manual_seed(1)) * uneven
    made = style.figure(9.5, 3.8)
    left, right = made.subfigures(1, 2)  # pyright: ignore[reportGeneralTypeIssues]
    _map(left, "gradient G", g)
    _map(right, "Ghat = G / (r + c)", equilibrated(g))
    return style.save(made, path)


def _map(half: SubFigure, name: str, matrix: Tensor) -> None:
    grid = half.subplots(
        2, 2, width_ratios=(5, 1), height_ratios=(1, 4), gridspec_kw={"wspace": 0.02, "hspace": 0.02}
    )
    entries = (matrix.abs() / matrix.square().mean().sqrt()).log10()
    main: Axes = grid[1, 0]
    main.imshow(entries.numpy(), aspect="auto", cmap="viridis", vmin=FLOOR, vmax=CEILING)
    main.set_xlabel("columns", fontsize=8, color=style.TEXT)
    main.set_ylabel("rows", fontsize=8, color=style.TEXT)
    columns, rows = sizes(matrix, 0), sizes(matrix, 1)
    grid[0, 0].semilogy(columns, color=style.FIRST)
    grid[1, 1].semilogx(rows, range(len(rows)), color=style.FIRST)
    grid[0, 0].set(ylim=(0.03, 10), xlim=(-0.5, len(columns) - 0.5), xticks=[])
    grid[1, 1].set(xlim=(0.03, 10), ylim=(len(rows) - 0.5, -0.5), yticks=[])
    grid[0, 1].remove()
    for axes in (grid[0, 0], main, grid[1, 1]):
        style.title(axes, "")
    spread = f"longest over shortest: columns {_ratio(columns):.0f}, rows {_ratio(rows):.0f}"
    style.title(grid[0, 0], f"{name}; {spread}")


def _ratio(lengths: Tensor) -> float:
    return (lengths.max() / lengths.min()).item()
