"""Kronecker preconditioners: rows and columns measured by the roots of their second moments (Shampoo)."""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Size, Tensor

from steepest.linalg import symmetric_eigen, symmetric_power
from steepest.linalg.fallback import Robust, keep_where_not_finite
from steepest.linalg.products import symmetric_multiply
from steepest.linalg.scaling import power_of_two
from steepest.preconditioners.base import Coordinates, Preconditioner
from steepest.preconditioners.factors import accumulate_, count_, new_counter, new_factor, sandwich
from steepest.preconditioners.schedule import Timing, background, due

Sides = Literal["both", "left", "right", "smaller", "vector"]


@dataclass(frozen=True)
class Blocks:
    """A matrix cut into blocks of ``rows`` x ``columns``; the last ones are padded with zeros."""

    shape: Size
    rows: int
    columns: int

    @property
    def grid(self) -> tuple[int, int]:
        """How many blocks stand below and beside each other."""
        return math.ceil(self.shape[-2] / self.rows), math.ceil(self.shape[-1] / self.columns)

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return math.prod(self.grid)

    def cut(self, x: Tensor) -> Tensor:
        """Return the blocks of a stack (k, m, n) as a stack (k * count, rows, columns)."""
        (i, j), (m, n) = self.grid, self.shape[-2:]
        if i * j == 1:
            return x
        x = torch.nn.functional.pad(x, (0, j * self.columns - n, 0, i * self.rows - m))
        return x.reshape(-1, i, self.rows, j, self.columns).transpose(2, 3).flatten(0, 2)

    def join(self, blocks: Tensor) -> Tensor:
        """Return the stack (k, m, n) of which these are the blocks."""
        (i, j), (m, n) = self.grid, self.shape[-2:]
        if i * j == 1:
            return blocks
        x = blocks.reshape(-1, i, j, self.rows, self.columns).transpose(2, 3)
        return x.reshape(-1, i * self.rows, j * self.columns)[:, :m, :n]


@dataclass(frozen=True)
class Roots(Coordinates):
    """The coordinates of |L W R| with symmetric L and R, block by block; None is the identity.

    ``left`` and ``right`` are the inverses of L^T L and R R^T, or with ``halved`` of L and R.
    """

    left: Tensor | None
    right: Tensor | None
    blocks: Blocks
    halved: bool

    def into(self, m: Tensor) -> Tensor:
        """Return L^-T M R^-T."""
        if not self.halved:
            return self._apply(_root(self.left), m, _root(self.right))
        return self._apply(self.left, m, self.right)

    def back(self, u: Tensor) -> Tensor:
        """Return L^-1 U R^-1: the same, L and R being symmetric."""
        return self.into(u)

    def solve(self, m: Tensor) -> Tensor:
        """Return (L^T L)^-1 M (R R^T)^-1."""
        return self.back(self.into(m)) if self.halved else self._apply(self.left, m, self.right)

    def _apply(self, left: Tensor | None, x: Tensor, right: Tensor | None) -> Tensor:
        return self.blocks.join(sandwich(left, self.blocks.cut(x), right))


@dataclass(frozen=True)
class Kronecker(Preconditioner):
    """L^T L = (A + eps I)^power and R R^T = (B + eps I)^power, with A of G G^T and B of G^T G.

    A and B are sums (``beta=None``), or exponential averages with coefficient ``beta`` (the hyperparameter
    ``beta2``) corrected by 1 - beta^t; the current gradient is part of them. ``power`` None is 1/4 for two
    sides and 1/2 for one. L and R are the symmetric roots, taken anew at the first step and whenever
    ``frequency`` divides the count of steps, or with ``refresh_timing="staggered"`` at a step of the cycle of
    each parameter's own, or with ``"background"`` from A and B as they were at the refresh before. A zero
    matrix says nothing, and its root stays as it was, at first the identity; so does a root that no attempt
    could compute. Eigenvalues that are rounding, below d times the rounding unit of the largest, count as
    that much.

    ``sides`` is ``"both"``, ``"left"`` (A alone), ``"right"`` (B alone) or ``"smaller"`` (that of the shorter
    dimension). A preconditioned dimension longer than ``max_dim`` is cut into blocks of that length, the
    last one padded with zeros, and every block is preconditioned by itself. Vectors are one row, and
    ``"both"`` turns into ``"vector"`` for them: the right side alone.

    State, for p blocks of r x c: ``left`` and ``left_root`` (p, r, r), ``right`` and ``right_root``
    (p, c, c), the statistics' powers of two ``left_unit`` and ``right_unit`` (p, 1, 1), and ``fallbacks``,
    the number of roots for which the first attempt failed. In the background also A and B as they were at the
    last refresh, corrected, of which the next roots will be: ``left_pending``, ``left_pending_unit``,
    ``right_pending``, ``right_pending_unit``. Without blocks the dimension p is absent.
    """

    beta: float | None = None
    eps: float = 1e-12
    power: float | None = None
    sides: Sides = "both"
    frequency: int = 1
    max_dim: int = 1024
    halved: bool = False
    refresh_timing: Timing = "together"

    batches = True

    def __post_init__(self) -> None:
        if self.sides not in get_args(Sides):
            raise ValueError(
                f"sides must be one of {', '.join(map(repr, get_args(Sides)))}, got {self.sides!r}"
            )
        if self.power is not None and not 0 < self.power <= 1:
            raise ValueError(f"power must be None or in (0, 1], got {self.power!r}")
        if self.frequency < 1:
            raise ValueError(f"frequency must be >= 1, got {self.frequency!r}")
        if self.max_dim < 1:
            raise ValueError(f"max_dim must be >= 1, got {self.max_dim!r}")
        if self.refresh_timing not in get_args(Timing):
            raise ValueError(
                f"refresh_timing must be one of {', '.join(map(repr, get_args(Timing)))}, "
                f"got {self.refresh_timing!r}"
            )

    @property
    def matrix_only(self) -> bool:
        """True for one side: vectors have no choice of sides."""
        return self.sides in ("left", "right", "smaller")

    @property
    def scheduled(self) -> bool:
        """True: roots are taken at some steps only."""
        return True

    @property
    def staggered(self) -> int:
        """How many steps a cycle has, if refreshes are spread over it."""
        return self.frequency if self.refresh_timing == "staggered" else 1

    def refresh_cost(self, shape: Size) -> float:
        """Return the cubes of the preconditioned sides of all blocks."""
        blocks = self._blocks(Size((1, *shape)) if len(shape) < 2 else Size((shape[0], shape[1:].numel())))
        sides = {"left": blocks.rows, "right": blocks.columns}
        return float(blocks.count * sum(sides[side] ** 3 for side in self._sides))

    def hypers(self) -> dict[str, Any]:
        """Return ``eps``, and ``beta2`` for the exponential average."""
        return {"eps": self.eps} if self.beta is None else {"beta2": self.beta, "eps": self.eps}

    def for_shape(self, shape: Size) -> Preconditioner:
        """Return this with its sides decided: the shorter one, or the only one of a vector."""
        if len(shape) < 2 and self.sides == "both":
            return replace(self, sides="vector")
        if self.sides == "smaller" and len(shape) >= 2:
            return replace(self, sides="left" if shape[0] <= shape[1:].numel() else "right")
        return self

    def apart(self) -> Preconditioner:
        """Return this with the roots of L and R themselves."""
        return replace(self, halved=True)

    def init(self, x: Tensor) -> dict[str, Tensor]:
        """Return zero statistics and identity roots."""
        blocks = self._blocks(x.shape)
        lead = (x.shape[0],) if blocks.count == 1 else (x.shape[0], blocks.count)
        state = {}
        for side in self._sides:
            size = blocks.rows if side == "left" else blocks.columns
            factor, unit = new_factor(x, *lead, size=size)
            root = torch.eye(size, dtype=x.dtype, device=x.device).expand_as(factor).clone()
            state |= {side: factor, f"{side}_unit": unit, f"{side}_root": root}
            if self.refresh_timing == "background":
                pending = torch.zeros_like(factor), torch.zeros_like(unit)
                state |= dict(zip(_pending(side), pending, strict=True))
        return {**state, "fallbacks": new_counter(x)}

    def prepare(
        self, grad: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]
    ) -> Coordinates:
        """Add the gradient to the statistics, take roots when it is time, and return the coordinates."""
        blocks, t = self._blocks(grad.shape), hypers["step"]
        pieces = blocks.cut(grad)
        roots: dict[str, Tensor] = {}
        keep, weight, correction = 1.0, 1.0, 1.0
        if self.beta is not None:
            keep, weight, correction = hypers["beta2"], 1 - hypers["beta2"], 1 - hypers["beta2"] ** t
        who = due(hypers, self.frequency, 1, grad) if pieces.numel() else None
        size = power_of_two(pieces) if pieces.numel() else None
        for side in self._sides:
            factor, unit, root = (_flat(state[side + suffix], pieces) for suffix in ("", "_unit", "_root"))
            accumulate_(factor, unit, pieces if side == "left" else pieces.mT, keep, weight, size)
            if who is not None:
                chosen = _blocks_of(who, blocks.count)
                names, settings = (*_pending(side), f"{side}_root"), (hypers["eps"], self._exponent)
                later = self.refresh_timing == "background"
                if later and t != 1:
                    new = Robust(*background(state, hypers).take(_inverse_root, names, *settings))
                else:
                    now = factor[chosen], unit[chosen], root[chosen]
                    new = _inverse_root(*now, *settings, correction)
                root[chosen] = new.value
                count_(state, new.retried, who)
                if later:
                    torch.div(factor, correction, out=_flat(state[names[0]], pieces))
                    state[names[1]].copy_(state[f"{side}_unit"])
                    background(state, hypers).ask(_inverse_root, names, *settings)
            roots[side] = root
        return Roots(roots.get("left"), roots.get("right"), blocks, self.halved)

    @property
    def _sides(self) -> tuple[str, ...]:
        return {"both": ("left", "right"), "left": ("left",)}.get(self.sides, ("right",))

    @property
    def _exponent(self) -> float:
        power = self.power or (0.25 if self.sides == "both" else 0.5)
        return power / 2 if self.halved else power

    def _blocks(self, shape: Size) -> Blocks:
        m, n = (max(1, size) for size in shape[-2:])
        rows = min(m, self.max_dim) if "left" in self._sides else m
        columns = min(n, self.max_dim) if "right" in self._sides else n
        return Blocks(shape, rows, columns)


def _pending(side: str) -> tuple[str, str]:
    """Return the names of the statistic that waits for its root, and of its unit."""
    return f"{side}_pending", f"{side}_pending_unit"


def _blocks_of(who: Tensor | slice, count: int) -> Tensor | slice:
    """Return the index of all blocks of these members of a stack."""
    if isinstance(who, slice) or count == 1:
        return who
    return (who[:, None] * count + torch.arange(count, device=who.device)).flatten()


def _flat(value: Tensor, pieces: Tensor) -> Tensor:
    """Return a state tensor (k, blocks, ...) as (k * blocks, ...), sharing memory."""
    return value.reshape(pieces.shape[0], *value.shape[-2:])


def _root(inverse: Tensor | None) -> Tensor | None:
    return None if inverse is None else symmetric_power(inverse, 0.5).value


def _inverse_root(
    factor: Tensor, unit: Tensor, previous: Tensor, eps: Any, exponent: float, correction: Any = 1.0
) -> Robust:
    """Return (factor unit^2 / correction + eps I)^-exponent, and ``previous`` for a zero factor.

    Eigenvalues below d times the rounding unit of the largest are rounding, and count as that much: otherwise
    a small ``eps`` would amplify what rounding leaves of the momentum in their directions.
    """
    eigen = symmetric_eigen(factor)
    w = eigen.values if factor.device.type == "mps" else eigen.values.double()
    largest = w[..., -1:]
    w = torch.maximum(w, largest * (w.shape[-1] * torch.finfo(factor.dtype).eps))
    w = w * unit[..., 0].to(w.dtype).square() / correction + eps
    # As a product with its own transpose the root is positive semi-definite whatever the rounding.
    half = eigen.vectors * (w ** (-exponent / 2)).to(factor.dtype)[..., None, :]
    product = symmetric_multiply(half, half.mT, torch.empty_like(factor))
    root = torch.where(largest[..., None] == 0, previous, product)
    return keep_where_not_finite(root, previous, eigen.retried)
