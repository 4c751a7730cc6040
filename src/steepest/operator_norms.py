"""Operator norms with dimension factors: the unit balls of Scion, one for each role of a layer.

A ball |X| <= 1 scaled by a factor c has u' = c u, |X|' = |X| / c and |G|*' = c |G|*. The factors make lr
carry over between widths. For a matrix of m outputs and n inputs, k its kernel area (1 for linear layers; in
convolutions n counts input channels times k):

| name | u(G) | meant for |
|---|---|---|
| ``spectral`` | sqrt(m/n) msign(G) | hidden linear layers |
| ``spectral_max`` | max(1, sqrt(m/n)) msign(G) | the same, wide layers unscaled |
| ``spectral_conv`` | sqrt(m / (n/k)) / k msign(G) | convolutions |
| ``sign`` | sign(G) / n | output layers |
| ``sign_raw`` | sign(G) | output layers, width left to the radius |
| ``col`` | sqrt(m) times unit columns | input layers on one-hot data |
| ``col_normalized`` | sqrt(m) / n times unit columns | other layers |
| ``row`` | unit rows / sqrt(n) | embeddings stored as (vocabulary, width), and hidden layers |
| ``row_raw`` | unit rows | |
| ``bias_rms`` | G / RMS(G) | biases and gains |

``auto``: ``spectral_conv`` for tensors of three or more dimensions, ``spectral`` for two, ``bias_rms`` below.

Source: Pethick et al., Training Deep Learning Models with Norm-Constrained LMOs, arXiv 2502.07529.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Size, Tensor

from steepest.norms import ColNorm, Frobenius, Max, Norm, RowNorm, Spectral
from steepest.spelling import suggest

Factor = Callable[[int, int, int], float]

FACTORS: dict[str, Factor] = {
    "spectral": lambda m, n, k: math.sqrt(m / n),
    "spectral_max": lambda m, n, k: max(1.0, math.sqrt(m / n)),
    "spectral_conv": lambda m, n, k: math.sqrt(m * k / n) / k,
    "sign": lambda m, n, k: 1 / n,
    "sign_raw": lambda m, n, k: 1.0,
    "col": lambda m, n, k: math.sqrt(m),
    "col_normalized": lambda m, n, k: math.sqrt(m) / n,
    "row": lambda m, n, k: 1 / math.sqrt(n),
    "row_raw": lambda m, n, k: 1.0,
    "bias_rms": lambda m, n, k: math.sqrt(m * n),
}
"""Factor of the ball for m outputs, n inputs and kernel area k."""

OPERATOR_NORMS = ("auto", *FACTORS)


@dataclass(frozen=True)
class Scaled(Norm):
    """A base norm whose unit ball is scaled by a factor of the shape, one of ``FACTORS``.

    >>> import torch
    >>> Scaled(Max(), "sign").direction(torch.tensor([[3.0, -4.0]]))
    tensor([[ 0.5000, -0.5000]])
    """

    base: Norm
    factor: str
    kernel_area: int = 1

    @property
    def matrix_only(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the base norm."""
        return self.base.matrix_only

    @property
    def batches(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As the base norm."""
        return self.base.batches

    def for_shape(self, shape: Size) -> Norm:
        """Return the norm with the kernel area of a convolution's weight."""
        return replace(self, base=self.base.for_shape(shape), kernel_area=max(1, shape[2:].numel()))

    def factor_of(self, m: int, n: int) -> float:
        """Return the factor for m outputs and n inputs times kernel positions."""
        return FACTORS[self.factor](max(1, m), max(1, n), self.kernel_area)

    def _factor(self, x: Tensor) -> float:
        return self.factor_of(x.shape[-2], x.shape[-1])

    def value(self, x: Tensor) -> Tensor:
        """Return |X| / c."""
        return self.base.value(x) / self._factor(x)

    def dual(self, g: Tensor) -> Tensor:
        """Return c |G|*."""
        return self.base.dual(g) * self._factor(g)

    def direction(self, g: Tensor) -> Tensor:
        """Return c u(G)."""
        return self.base.direction(g) * self._factor(g)


@dataclass(frozen=True)
class Auto(Norm):
    """The operator norm for a tensor's role, told by its number of dimensions.

    ``spectral_conv`` for three or more, ``spectral`` for two, ``bias_rms`` for vectors and scalars.
    """

    orthogonalizer: str = "auto"
    steps: int = 5
    batches = True

    def for_shape(self, shape: Size) -> Norm:
        """Return the norm for a parameter of this shape."""
        name = "bias_rms" if len(shape) < 2 else "spectral" if len(shape) == 2 else "spectral_conv"
        return operator_norm(name, self.orthogonalizer, self.steps).for_shape(shape)

    def value(self, x: Tensor) -> Tensor:
        """Return the value for plain matrices."""
        return self.for_shape(x.shape[-2:]).value(x)

    def dual(self, g: Tensor) -> Tensor:
        """Return the dual for plain matrices."""
        return self.for_shape(g.shape[-2:]).dual(g)

    def direction(self, g: Tensor) -> Tensor:
        """Return the direction for plain matrices."""
        return self.for_shape(g.shape[-2:]).direction(g)


def operator_norm(name: str, orthogonalizer: str = "auto", steps: int = 5) -> Norm:
    """Return the norm of this name; ``orthogonalizer`` and ``steps`` are for the spectral ones.

    Raises:
        ValueError: for a name that is not in ``OPERATOR_NORMS``.

    >>> operator_norm("row")
    Scaled(base=RowNorm(), factor='row', kernel_area=1)
    """
    if name == "auto":
        return Auto(orthogonalizer, steps)
    if name not in FACTORS:
        raise ValueError(
            f"norm must be a Norm or one of {', '.join(OPERATOR_NORMS)}, got {name!r}"
            f"{suggest(str(name), OPERATOR_NORMS)}"
        )
    family = name.partition("_")[0]
    bases = {"sign": Max(), "col": ColNorm(), "row": RowNorm(), "bias": Frobenius()}
    return Scaled(bases.get(family) or Spectral(orthogonalizer, steps), name)
