"""Mushrooms in two sets of coordinates: does the path of the loss depend on how the weights are written?

Every run trains two models on the same batches: one on the data X, and its twin, the same problem in other
coordinates, from the matching start. Without biases all parameters are matrices; in float64 nothing but the
optimizer can tell the two apart. Two changes of coordinates, drawn once for the task:

- scaled columns: x'_j = x_j / c_j and W' = W diag(c) in the first layer, c = exp(uniform[-k, k]);
- ``affine``: W' = A W B with invertible A and B (condition at most exp(2k)) in every layer. Inputs of the
  first layer become B^-1 x in the data; further layers apply the inverses of A and B inside the model.

The metric is ``deviation``, max over steps of |L_t - L'_t| / |L_1| of the two training losses. The hidden
layer is followed by ReLU: the derivative of a saturated tanh is little more than rounding, and methods that
divide by the square of a gradient make steps of it.

The paper's learning rates are not known here, so that there is no paper protocol for this task.
"""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steepest.checks.invariances.transforms import TRANSFORMS, Map, Sided
from steepest.race.data import libsvm
from steepest.race.data.identity import identity
from steepest.race.data.lookup import find
from steepest.race.data.sources import MUSHROOMS
from steepest.race.engine import to_device
from steepest.race.paper import Claim
from steepest.race.records import RaceError
from steepest.race.task import Task

FEATURES = 112
VALIDATION_PART = 0.2
SPLIT_SEED = 0
COORDINATES_SEED = 0
STEPS = {"cpu": 300, "full": 2000}
BATCH_SIZE = 256
ROWS = 6500
"""Of the training set: a batch of the affine variant."""
TARGET = 0.02
LR_SCALE = 30.0
"""The classes can be separated, so that a linear model likes large rates: 1 for AdamW, 0.01 for SANIA."""
INVARIANT = 1e-6
"""A deviation up to this is rounding: float64, multiplied over some hundred steps."""

SOURCE = "arXiv 2510.10777"
SANIA = ("AdamSANIA(eps=0)", "MuAdamSANIA(eps=0)")
KRONECKER = "KFAC(damping=0, kl_clip=None)"
"""As they are raced: eps and damping take a method away from the rule that theory speaks of."""
DEPENDENT = ("AdamW", "Muon", "SGD")


class Mushrooms(NamedTuple):
    """Features (k, d) in float64 and labels 0 and 1 in float64, for training and for validation."""

    features: Tensor
    labels: Tensor
    val_features: Tensor
    val_labels: Tensor


def data(independent: bool) -> Mushrooms:
    """Load and split the 8,124 rows once and for all.

    The 112 features are 0 or 1, one for each value of 22 properties, so that those of a property sum to 1 and
    second moments of them have no inverse. ``independent`` keeps the 84 columns that no combination of
    earlier ones gives: the same functions, a regular covariance.
    """
    return _load(find(MUSHROOMS), independent)


@lru_cache(maxsize=2)
def _load(_: Path, independent: bool) -> Mushrooms:
    table = libsvm.load(MUSHROOMS, FEATURES)
    x, y = table.features.double(), table.labels.double()
    if independent:
        x = x[:, _independent_columns(x)]
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(SPLIT_SEED))
    cut = int(len(x) * VALIDATION_PART)
    val, train = order[:cut], order[cut:]
    return Mushrooms(x[train], y[train], x[val], y[val])


def _independent_columns(x: Tensor) -> Tensor:
    """Return the columns that no combination of earlier ones gives: where R of x = QR has a diagonal."""
    diagonal = torch.linalg.qr(x, mode="r").R.diagonal().abs()
    return (diagonal > 1e-8 * diagonal.max()).nonzero().flatten()


class Layer(nn.Module):
    """A linear layer without bias, with fixed maps around it in other coordinates than the first."""

    inward: Tensor | None
    outward: Tensor | None

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False, dtype=torch.float64)
        self.register_buffer("inward", None)
        self.register_buffer("outward", None)

    def forward(self, x: Tensor) -> Tensor:
        """Map rows x to x W^T, whatever the coordinates."""
        x = self.linear(x if self.inward is None else x @ self.inward)
        return x if self.outward is None else x @ self.outward

    @torch.no_grad()
    def change(self, change: Sided) -> None:
        """Go over to W' = A W B."""
        self.linear.weight.copy_(change.new(self.linear.weight))
        self.inward, self.outward = change.right_inverse.mT, change.left_inverse.mT


class Network(nn.Module):
    """Layers with ReLU between them; one logit."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(n, m) for n, m in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Map rows of features to logits (k,)."""
        for i, layer in enumerate(self.layers):
            x = layer(x if i == 0 else F.relu(x))
        return x.squeeze(1)


def model(hidden: int, mushrooms: Mushrooms) -> nn.Module:
    """Build a linear model, or one with a hidden layer."""
    between = (hidden,) if hidden else ()
    return Network(mushrooms.features.shape[1], *between, 1)


def twin(
    transform: str, strength: float, mushrooms: Mushrooms, network: nn.Module
) -> tuple[Mushrooms, nn.Module]:
    """Return the same problem in other coordinates; neither argument is changed."""
    generator = torch.Generator().manual_seed(COORDINATES_SEED)
    other = deepcopy(network)
    assert isinstance(other, Network)
    for i, layer in enumerate(other.layers):
        assert isinstance(layer, Layer)
        outputs, inputs = layer.linear.weight.shape
        if i > 0 and transform == "columns":
            break  # only features are scaled, as they are in the paper
        change = _sided(TRANSFORMS[transform].draw(outputs, inputs, strength, generator))
        layer.change(change)
        if i == 0:  # the data carry what the first layer would undo
            layer.inward, into = None, change.right_inverse.mT
            mushrooms = mushrooms._replace(
                features=mushrooms.features @ into, val_features=mushrooms.val_features @ into
            )
    return mushrooms, other


def _sided(change: Map) -> Sided:
    assert isinstance(change, Sided)
    return change


def batch(mushrooms: Mushrooms, generator: torch.Generator, batch_size: int) -> tuple[Tensor, Tensor]:
    """Draw rows with replacement; all of them, in order, if the batch is as large as the training set."""
    if batch_size >= len(mushrooms.labels):
        return mushrooms.features, mushrooms.labels
    index = torch.randint(len(mushrooms.labels), (batch_size,), generator=generator)
    return mushrooms.features[index], mushrooms.labels[index]


def loss(network: nn.Module, drawn: tuple[Tensor, Tensor]) -> Tensor:
    """Logistic loss in nats."""
    return F.binary_cross_entropy_with_logits(network(drawn[0]), drawn[1])


def evaluate(network: nn.Module, mushrooms: Mushrooms) -> dict[str, float]:
    """Logistic loss and accuracy on the validation rows."""
    device = next(network.parameters()).device
    x, y = to_device((mushrooms.val_features, mushrooms.val_labels), device)
    logits = network(x)
    return {
        "val_loss": F.binary_cross_entropy_with_logits(logits, y).item(),
        "val_accuracy": ((logits > 0) == (y > 0.5)).double().mean().item(),
    }


def task(preset: str = "cpu", *, hidden: int = 0, k: float = 2.0, affine: bool = False) -> Task:
    """Return the task at a preset; presets differ in the number of steps.

    Args:
        preset: "cpu" (300 steps) or "full" (2,000).
        hidden: width of the hidden layer (ReLU); 0 is a linear model. Default 0.
        k: how far the new coordinates are from the old: scales are exp(uniform[-k, k]), in (0, 6]. Default 2.
        affine: W' = A W B in all layers instead of scaled features; batches are then the whole training set,
            without which the covariances of K-FAC have no inverse. Default False.

    Raises:
        RaceError: an option is out of its range.
    """
    if isinstance(hidden, bool) or not isinstance(hidden, int) or not 0 <= hidden <= 1000:
        raise RaceError(f"hidden must be a whole number from 0 to 1000, got {hidden!r}")
    if isinstance(k, bool) or not isinstance(k, int | float) or not 0 < k <= 6:
        raise RaceError(f"k must be in (0, 6], got {k!r}")
    if not isinstance(affine, bool):
        raise RaceError(f"affine must be True or False, got {affine!r}")
    name = "-".join(
        ["invariance", *([f"hidden{hidden}"] if hidden else []), *(["affine"] if affine else [])]
        + ([f"k{k:g}"] if k != 2.0 else [])
    )
    between = f"hidden layer of {hidden}, ReLU" if hidden else "linear model"
    coordinates = "W' = A W B" if affine else f"columns scaled by exp(uniform[-{k:g}, {k:g}])"
    return Task(
        name=name,
        version="3",
        description=f"mushrooms (LIBSVM) and the same with {coordinates}; {between}; logistic loss, float64",
        data=partial(data, affine),
        model=partial(model, hidden),
        batch=batch,
        loss=loss,
        evaluate=evaluate,
        steps=STEPS[preset],
        batch_size=ROWS if affine else BATCH_SIZE,
        target=TARGET,
        step_ms=8.0 if affine else 2.0,
        settings={
            "hidden": hidden,
            "k": float(k),
            "affine": affine,
            "seeds": (SPLIT_SEED, COORDINATES_SEED),
            "data": identity([MUSHROOMS]),
        },
        preset=preset,
        claims=_claims(affine),
        headline="deviation",
        lr_scale=1.0 if hidden else LR_SCALE,
        twin=partial(twin, "affine" if affine else "columns", float(k)),
    )


def _claims(affine: bool) -> tuple[Claim, ...]:
    """Say who is invariant (no deviation but rounding) and that it deviates less than those who are not."""
    said = "affine-invariant" if affine else "scale-invariant"
    invariant = (KRONECKER,) if affine else SANIA
    claims = [
        Claim(SOURCE, f"{name} is {said}", name, "equal", 0.0, metric="deviation", margin=INVARIANT)
        for name in invariant
    ]
    claims += [
        Claim(
            SOURCE,
            f"{other} is not {said}",
            invariant[-1],
            "better",
            other,
            metric="deviation",
            margin=INVARIANT,
        )
        for other in DEPENDENT
    ]
    return tuple(claims)
