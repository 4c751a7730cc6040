"""The framework itself: any base norm, in diagonal coordinates, with any momentum, unit or dual-scaled."""

from dataclasses import dataclass

import torch
from torch import Tensor

from references.common import as_matrix, msign, shape_scale


def norm_value(x: Tensor, norm: str) -> float:
    """|X| in the named base norm."""
    return {
        "frobenius": lambda: float((x * x).sum().sqrt()),
        "max": lambda: float(x.abs().max()),
        "spectral": lambda: float(torch.linalg.svdvals(x).max()),
        "row": lambda: float((x * x).sum(dim=1).sqrt().max()),
        "col": lambda: float((x * x).sum(dim=0).sqrt().max()),
    }[norm]()


def dual_value(x: Tensor, norm: str) -> float:
    """|X|* = max <X, Y> over the unit ball."""
    return {
        "frobenius": lambda: float((x * x).sum().sqrt()),
        "max": lambda: float(x.abs().sum()),
        "spectral": lambda: float(torch.linalg.svdvals(x).sum()),
        "row": lambda: float((x * x).sum(dim=1).sqrt().sum()),
        "col": lambda: float((x * x).sum(dim=0).sqrt().sum()),
    }[norm]()


def unit(x: Tensor, norm: str) -> Tensor:
    """u(X) = -lmo(X) for an X without zero rows or columns."""
    return {
        "frobenius": lambda: x / (x * x).sum().sqrt(),
        "max": lambda: x.sign(),
        "spectral": lambda: msign(x),
        "row": lambda: x / (x * x).sum(dim=1, keepdim=True).sqrt(),
        "col": lambda: x / (x * x).sum(dim=0, keepdim=True).sqrt(),
    }[norm]()


@dataclass(frozen=True)
class Geometry:
    """D^2 from the statistic V: a power of its EMA (``beta``) or sum (None), or the row and column norms."""

    kind: str = "identity"
    power: float = 0.5
    beta: float | None = 0.9
    eps: float = 1e-3
    placement: str = "outside"


@dataclass(frozen=True)
class Average:
    """Momentum: "none", "sum" (heavy ball) or "ema", before or after the oracle."""

    kind: str = "none"
    coefficient: float = 0.8
    nesterov: bool = False
    corrected: bool = False
    after: bool = False


def _diagonal(g: Tensor, v: Tensor, correction: float, geometry: Geometry) -> Tensor:
    """D, entry by entry."""
    if geometry.kind == "identity":
        return torch.ones_like(g)
    if geometry.kind == "equilibration":
        return (
            (g * g).sum(1, keepdim=True).sqrt() + (g * g).sum(0, keepdim=True).sqrt() + geometry.eps
        ).sqrt()
    power, eps = geometry.power, geometry.eps
    squared = {
        "outside": (v / correction) ** power + eps,
        "uncorrected": (v**power + eps) / correction**power,
        "inside": (v / correction + eps) ** power,
    }[geometry.placement]
    return squared.sqrt()


def steepest(
    w0: Tensor,
    grads: list[Tensor],
    lr: float,
    norm: str = "frobenius",
    geometry: Geometry = Geometry(),
    average: Average = Average(),
    dual: bool = True,
    scale: str | None = None,
    weight_decay: float = 0.0,
) -> list[Tensor]:
    """T = M / D, U = u(T), S = U / D times |T|* or a shape scale, W <- (1 - lr wd) W - lr S."""
    w = as_matrix(w0)
    v, buffer = torch.zeros_like(w), torch.zeros_like(w)
    iterates = []

    def averaged(x: Tensor, t: int) -> Tensor:
        nonlocal buffer
        b = average.coefficient
        if average.kind == "none":
            return x
        share = 1.0 if average.kind == "sum" else 1 - b
        buffer = b * buffer + share * x
        out = b * buffer + share * x if average.nesterov else buffer
        if average.corrected:
            out = out / (1 - b ** (t + 1) if average.nesterov else 1 - b**t)
        return out

    for t, gradient in enumerate(grads, start=1):
        g = as_matrix(gradient)
        correction = 1.0
        if geometry.beta is None:
            v = v + g * g
        else:
            v = geometry.beta * v + (1 - geometry.beta) * g * g
            correction = 1 - geometry.beta**t
        d = _diagonal(g, v, correction, geometry)
        x = g if average.after else averaged(g, t)
        target = x / d
        step = unit(target, norm) / d
        step = dual_value(target, norm) * step if dual else shape_scale(scale, *w.shape) * step
        if average.after:
            step = averaged(step, t)
        w = (1 - lr * weight_decay) * w - lr * step
        iterates.append(w.reshape(w0.shape))
    return iterates
