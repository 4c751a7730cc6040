"""The problem of the measurement: handwritten digits, averaged to 3 x 3 pixels, in float64.

Two models without biases, so that all parameters are matrices: ``"linear"`` (9 x 9) and ``"mlp"`` (10 x 9,
tanh, 9 x 10). The loss is softmax cross-entropy with the tenth digit as reference class (its logit is 0):
with ten free logits, adding a constant to all would change nothing, gradients would have no full rank, and
statistics of them no inverse. Sides differ by at most one for the same reason: the second moments of a single
10 x 9 gradient have one null direction, hence eigenvectors that are unique up to sign. In a null space of two
or more dimensions they are whatever the solver returns, and so is the step of a method that works in them:
``"pixels"``, a 9 x 61 matrix on all pixels that are not constant, shows it. It is measured on request.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steepest.checks.invariances.transforms import Map, Same, Transform

MODELS: dict[str, tuple[int, ...]] = {"linear": (9, 9), "mlp": (9, 10, 9), "pixels": (61, 9)}
"""Widths of each model, from the features to the free logits."""

STANDARD = ("linear", "mlp")
"""The models measured unless others are named."""

BATCH_SIZE = 256


@lru_cache(maxsize=2)
def data(width: int) -> tuple[Tensor, Tensor]:
    """Return features (1797, width) of zero mean and unit variance, and labels 0 to 9; width is 9 or 61.

    Raises:
        ModuleNotFoundError: scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'invariance needs scikit-learn for its data: pip install "steepest[race]"'
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float64).view(-1, 1, 8, 8)
    x = F.adaptive_avg_pool2d(images, 3).flatten(1) if width == 9 else images.flatten(1)
    x = x[:, x.std(0) > 0]
    return (x - x.mean(0)) / x.std(0), torch.tensor(labels, dtype=torch.long)


class Layer(nn.Module):
    """A linear layer that holds W' and computes with W."""

    def __init__(self, weight: Tensor, change: Map):
        super().__init__()
        self.change = change
        # On the meta device nothing is drawn from the global random state.
        self.linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        self.linear.weight = nn.Parameter(change.new(weight))

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T."""
        return self.change.apply(self.linear, x)

    def old_weight(self) -> Tensor:
        """Return W, mapped back from W'."""
        return self.change.old(self.linear.weight)


class Problem(nn.Module):
    """One of the models in the coordinates of ``transform``, with its batches.

    Weights, batches and changes of coordinates depend on ``model``, ``seed``, ``strength`` and the
    transform's name alone, so that two problems that differ in the transform are one problem in two sets of
    coordinates.
    """

    def __init__(
        self, model: str, transform: Transform | None = None, *, strength: float = 1.0, seed: int = 0
    ):
        super().__init__()
        widths, start = MODELS[model], torch.Generator().manual_seed(seed)
        draw = torch.Generator().manual_seed(seed + 1)
        self.factor = 1.0 if transform is None else transform.factor
        self._width = widths[0]
        self.layers: list[Layer] = []
        for n, m in pairwise(widths):
            weight = torch.randn(m, n, generator=start, dtype=torch.float64) / n**0.5
            change = Same() if transform is None else transform.draw(m, n, strength, draw)
            self.layers.append(Layer(weight, change))
        self.registered = nn.ModuleList(self.layers)  # gives the parameters; the list keeps the type
        self._order = torch.Generator().manual_seed(seed + 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the ten logits of rows x, the last one zero."""
        for i, layer in enumerate(self.layers):
            x = layer(x if i == 0 else torch.tanh(x))
        return F.pad(x, (0, 1))

    def batch(self) -> tuple[Tensor, Tensor]:
        """Draw the next batch."""
        x, y = data(self._width)
        index = torch.randint(len(x), (BATCH_SIZE,), generator=self._order)
        return x[index], y[index]

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean cross-entropy of a batch, times the transform's factor."""
        return self.factor * F.cross_entropy(self(batch[0]), batch[1])

    @torch.no_grad()
    def position(self) -> Tensor:
        """Return all weights W, mapped back from W', as one vector."""
        return torch.cat([layer.old_weight().flatten() for layer in self.layers])
