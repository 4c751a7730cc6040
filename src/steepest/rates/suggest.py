"""From AdamW's lr to another method's, by matching the size of updates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from steepest._resolve import load_target
from steepest.hypers import number
from steepest.optimizers import AdamW
from steepest.routing import ParamGroups, param_groups
from steepest.text_table import aligned
from steepest.update_size import BACKWARD, STEPS, update_rms

SIZE_MATTERS = 1.1
"""A method whose update grows by more than this (or shrinks) with a tenfold gradient depends on its size."""
WIDE = 3.0
"""Shapes that want rates so far apart do not share one well."""
PIECE, GROWTH_STEPS = 48, 12
"""Sides of the matrix, and steps, on which the dependence on the gradient's size is measured."""
SHAPES = ((768, 768), (3072, 768), (768, 3072))
"""What is measured without a model: the matrices of a transformer of width 768."""


@dataclass(frozen=True)
class ShapeRate:
    """What one shape says: the updates' root mean squares at lr = 1, and the lr that makes them equal."""

    shape: tuple[int, ...]
    count: int
    adamw: float
    own: float
    lr: float


@dataclass(frozen=True)
class Suggestion:
    """An lr to begin a sweep at. ``float(suggestion)`` is ``lr``; printed, it shows how it was found.

    ``aux_lr`` is for a hybrid's ``aux``, None for methods with one rule. ``growth`` is the factor by which
    the update at lr = 1 grows with a tenfold gradient: 1 for methods that look at directions only, None
    where gradients were given. ``notes`` are the limits that apply to this case.
    """

    optimizer: str
    lr: float
    aux_lr: float | None
    adamw_lr: float
    shapes: tuple[ShapeRate, ...]
    growth: float | None
    notes: tuple[str, ...]

    def __float__(self) -> float:
        return self.lr

    def __str__(self) -> str:
        rows = [["shape", "AdamW's RMS at lr 1", f"{self.optimizer}'s", "lr to match"]]
        for one in self.shapes:
            told = "x".join(map(str, one.shape)) or "scalar"
            told += f" x {one.count}" if one.count > 1 else ""
            rows.append([told, f"{one.adamw:.3g}", f"{one.own:.3g}", f"{one.lr:.3g}"])
        first = f"{self.optimizer}: begin at lr={self.lr:.2g}"
        if self.aux_lr is not None:
            first += f" with aux=dict(lr={self.aux_lr:g})"
        first += f", which moves these weights as far per step as AdamW with lr={self.adamw_lr:g}."
        return "\n".join([first, "", *aligned(rows), "", *(f"Note: {note}" for note in self.notes)])


def suggest_lr(
    optimizer: str | type[Optimizer],
    adamw_lr: float,
    model: nn.Module | ParamGroups | Iterable[Tensor] | None = None,
    *,
    adamw_betas: tuple[float, float] = (0.9, 0.999),
    backward: BACKWARD | None = None,
    steps: int = STEPS,
    **options: Any,
) -> Suggestion:
    """Return the lr at which a method's updates are as large as AdamW's: where to begin, not where to end.

    lr = adamw_lr sqrt(sum |dW_AdamW|^2 / sum |dW|^2), both updates at lr = 1 and without decay, summed over
    the parameters that the method's own rule takes. A hybrid's auxiliary AdamW keeps ``adamw_lr``.

    Matching the size of updates is what made AdamW's settings carry over to Muon in the source. Its limits:

    - Equal size is not equal progress: sweep by threes around it.
    - It is as good as ``adamw_lr`` was, and supposes the same batch size, schedule and decay; decoupled
      decay per step is lr * weight_decay, so scale weight_decay by adamw_lr / lr to keep it.
    - Random gradients have full rank and no common direction. Real ones make AdamW's updates up to twice
      and low-rank spectral updates less than as large: pass ``backward`` for your own.
    - For methods whose step follows the gradient's size (SGD, ANDI with large gradients, MuAdam) it holds
      for a gradient of norm 1 of the whole network, or for the gradients that ``backward`` gives.

    Args:
        optimizer: a class, its name ("Muon"), or "module:Class".
        adamw_lr: the lr at which AdamW trains this model well, > 0.
        model: a module (its groups are those of :func:`steepest.param_groups`), groups, or parameters.
            Default: the matrices of a transformer of width 768.
        adamw_betas: AdamW's. Default (0.9, 0.999).
        backward: clears the gradients, draws a batch, calls ``loss.backward()`` and returns the loss; it is
            called ``steps`` times for each of the two methods, at the weights as they are. It must not step.
        steps: steps of the measurement, the second half of which counts. Default 32.
        **options: the optimizer's other arguments, such as ``scale="match_rms_adamw"``.

    Raises:
        TypeError, ValueError: for a name, number or option that does not exist, KFAC (its step needs its
            layers: use :func:`steepest.lr_range_test`), and parameters that never move.

    Source:
        Liu et al., Muon is Scalable for LLM Training, arXiv 2502.16982 (matching the root mean square).

    Example:
        >>> import torch, steepest
        >>> layer = torch.nn.Linear(64, 64, bias=False)
        >>> found = steepest.suggest_lr("Muon", 3e-4, layer, scale="match_rms_adamw")
        >>> print(f"{found.lr:.0e}")
        4e-04
    """
    number(0, ends="()")("adamw_lr", adamw_lr)
    if type(steps) is not int or steps < 2:
        raise ValueError(f"steps must be an integer >= 2, got {steps!r}")
    cls = optimizer if isinstance(optimizer, type) else load_target(optimizer)
    if not issubclass(cls, Optimizer):
        raise TypeError(f"optimizer must be an optimizer class or its name, got {cls!r}")
    if backward is not None and not isinstance(model, nn.Module | ParamGroups):
        raise TypeError("backward needs the model whose gradients it makes")
    groups = _groups(model)
    own = _built(cls, groups, adamw_lr, options)
    adamw = AdamW(_plain(groups), lr=adamw_lr, betas=adamw_betas)
    own_rms = update_rms(own, backward=backward, steps=steps)
    adamw_rms = update_rms(adamw, backward=backward, steps=steps)
    hybrid = any(group.get("rule") == "aux" for group in own.param_groups)
    compared = [p for g in own.param_groups if g.get("rule") != "aux" for p in g["params"] if p in own_rms]
    if not compared:
        raise ValueError(f"{cls.__name__}'s own rule takes none of these parameters: all go to its aux AdamW")
    lr = adamw_lr * _ratio(compared, adamw_rms, own_rms, cls.__name__)
    shapes = tuple(_by_shape(compared, adamw_rms, own_rms, adamw_lr))
    growth = None
    if backward is None:
        growth = _growth(cls, own, compared, options)
    notes = tuple(_notes(cls.__name__, lr, adamw_lr, shapes, growth))
    return Suggestion(cls.__name__, lr, adamw_lr if hybrid else None, adamw_lr, shapes, growth, notes)


def _groups(model: Any) -> Sequence[dict[str, Any]]:
    if model is None:
        return [{"params": [Parameter(torch.zeros(shape, device="cpu")) for shape in SHAPES]}]
    if isinstance(model, nn.Module):
        return list(param_groups(model))
    if isinstance(model, Tensor | str | Mapping) or not isinstance(model, Iterable):
        raise TypeError(f"model must be a module, groups or parameters, got {type(model).__name__}")
    entries = list(model)
    return entries if entries and isinstance(entries[0], dict) else [{"params": entries}]


def _plain(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return groups with nothing but parameters, for AdamW as it would train all of them."""
    return [{"params": list(group["params"])} for group in groups]


def _built(cls: type[Optimizer], groups: Any, adamw_lr: float, options: dict[str, Any]) -> Optimizer:
    if "lr" in options:
        raise TypeError("lr is what is asked for; leave it out")
    if hasattr(cls, "remove_hooks"):
        raise ValueError(
            f"{cls.__name__} steps from what its layers see, not from gradients alone: use lr_range_test"
        )
    build: Any = cls
    # Any rate will do: updates are measured in units of it. Rates that groups set are dropped for that.
    return build([{k: v for k, v in g.items() if k != "lr"} for g in groups], lr=adamw_lr, **options)


def _ratio(params: list[Tensor], above: dict[Tensor, float], below: dict[Tensor, float], name: str) -> float:
    over = sum(p.numel() * above[p] ** 2 for p in params)
    under = sum(p.numel() * below[p] ** 2 for p in params)
    if not (under > 0 and over > 0 and math.isfinite(over) and math.isfinite(under)):
        raise ValueError(f"no update of {name} or AdamW could be measured: weights did not move, or blew up")
    return math.sqrt(over / under)


def _growth(cls: type[Optimizer], own: Optimizer, params: list[Tensor], options: dict[str, Any]) -> float:
    """Return by how much an update grows with a tenfold gradient, on a small piece of the largest matrix."""
    entries = sum(p.numel() for group in own.param_groups for p in group["params"])
    largest = max(params, key=Tensor.numel)
    share = math.sqrt(largest.numel() / entries)
    piece = Parameter(torch.zeros([min(size, PIECE) for size in largest.shape], device="cpu"))
    small = _built(cls, [{"params": [piece], **_kept(own, largest)}], 1e-3, options)
    norms = (share, 10 * share)
    one, ten = (update_rms(small, steps=GROWTH_STEPS, gradient_norm=norm)[piece] for norm in norms)
    return ten / one if one > 0 else 1.0


def _kept(own: Optimizer, param: Tensor) -> dict[str, Any]:
    """Return what the group of a parameter says of its rule."""
    group = next(g for g in own.param_groups if any(p is param for p in g["params"]))
    return {k: v for k, v in group.items() if k in ("norm", "radius", "batch_dims")}


def _by_shape(
    params: list[Tensor], adamw: dict[Tensor, float], own: dict[Tensor, float], adamw_lr: float
) -> Iterable[ShapeRate]:
    alike: dict[tuple[int, ...], list[Tensor]] = {}
    for p in params:
        if own[p] > 0:
            alike.setdefault(tuple(p.shape), []).append(p)
    for shape, ones in alike.items():
        a, o = (math.sqrt(sum(rms[p] ** 2 for p in ones) / len(ones)) for rms in (adamw, own))
        yield ShapeRate(shape, len(ones), a, o, adamw_lr * a / o)


def _notes(
    name: str, lr: float, adamw_lr: float, shapes: Sequence[ShapeRate], growth: float | None
) -> Iterable[str]:
    yield "equal size is not equal progress: sweep by threes around this lr."
    if lr != adamw_lr:
        yield f"for the same decay per step, multiply AdamW's weight_decay by {adamw_lr / lr:.2g}."
    if growth is None:
        yield "measured on the gradients given, at the present weights."
    elif max(growth, 1 / growth) > SIZE_MATTERS:
        yield (
            f"{name}'s updates follow the size of gradients (tenfold gradients, {growth:.2g}-fold updates): "
            "this lr is for a gradient of norm 1 of the whole network; pass backward= to use your own."
        )
    else:
        yield "measured on random gradients; pass backward= to use your own."
    rates = [one.lr for one in shapes]
    if max(rates) > WIDE * min(rates):
        yield (
            f"shapes disagree, from {min(rates):.2g} to {max(rates):.2g}: a scale by shape (as "
            "scale='match_rms_adamw' in Muon) or an lr for each group would fit better."
        )
