"""Wrappers: any optimizer of this library with another treatment of its weights.

The direction stays the wrapped method's; only decay or constraint change. The result is a class with the
same signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from steepest.optimizer import RuleOptimizer
from steepest.rule import Rule
from steepest.steps import MeanSide, UnitLMO

Class = TypeVar("Class", bound=type[RuleOptimizer])


def cautious(cls: Class) -> Class:
    """Return ``cls`` with cautious weight decay: only entries that the step moves towards zero decay.

    W <- (1 - lr weight_decay [S * W > 0]) W - lr S

    ``weight_decay`` keeps its meaning and needs to be set for this to differ. Not for methods whose decay is
    part of the rule (L2 in Adam, constrained Scion).

    Source: Chen et al., Cautious Weight Decay, arXiv 2510.12402.

    >>> import torch, steepest
    >>> layer = torch.nn.Linear(4, 2)
    >>> optimizer = steepest.cautious(steepest.AdamW)(layer.parameters(), lr=1e-3, weight_decay=0.1)
    >>> type(optimizer).__name__
    'CautiousAdamW'
    """
    return _variant(cls, "Cautious", "cautious", None)


def hyperball(cls: Class) -> Class:
    """Return ``cls`` on the hyperball: weights keep their Frobenius norm R, and lr is an angle.

    W <- R (W - lr R S / |S|_F) / |W - lr R S / |S|_F|_F, for each parameter, R its norm before the step

    Decay and the method's step length lose their meaning (``weight_decay`` is not read); vectors and scalars
    of hybrids stay with the auxiliary rule. A weight of norm zero never moves, so do not use it on
    zero-initialised layers: give those ``rule="aux"`` or another optimizer.

    Source: Wen et al., Fantastic Pretraining Optimizers and Where to Find Them II: From Weight Decay to
    Hyperball Optimization (2025).

    >>> import torch, steepest
    >>> layer = torch.nn.Linear(4, 2)
    >>> optimizer = steepest.hyperball(steepest.Muon)(layer.parameters(), lr=0.02)
    >>> layer(torch.ones(1, 4)).sum().backward()
    >>> before = layer.weight.norm().item()
    >>> optimizer.step()
    >>> abs(layer.weight.norm().item() - before) < 1e-5
    True
    """
    return _variant(cls, "Hyperball", None, "hyperball")


@cache
def _variant(cls: Any, prefix: str, decay: Any, constraint: Any) -> Any:
    if not (isinstance(cls, type) and issubclass(cls, RuleOptimizer)):
        raise TypeError(f"cls must be an optimizer class of steepest, got {cls!r}")
    base: type[RuleOptimizer] = cls
    root, *before = getattr(base, "_made", (base,))
    made = root, *before, (prefix, decay, constraint)

    class Variant(base):
        _made = made

        @classmethod
        def recipe(cls, group: Mapping[str, Any]) -> Rule:
            rule = super().recipe(group)
            if decay and rule.decay not in ("decoupled", "after"):
                raise ValueError(
                    f"{prefix.lower()}({base.__name__}): its decay is {rule.decay!r}, part of the rule itself"
                )
            if constraint and isinstance(rule.step, MeanSide):  # which would divide the angle
                rule = replace(rule, step=UnitLMO())
            return replace(rule, decay=decay or "decoupled", constraint=constraint or rule.constraint)

        def __reduce_ex__(self, protocol: Any) -> Any:
            # The class is made at run time: pickles name the wrappers and the wrapped instead.
            return _rebuild, made, self.__getstate__()

    Variant.__name__ = Variant.__qualname__ = prefix + base.__name__
    Variant.__doc__ = f"{prefix}{base.__name__}: {base.__doc__ or ''}"
    return Variant


def _rebuild(cls: Any, *wrappers: tuple[Any, ...]) -> Any:
    for wrapper in wrappers:
        cls = _variant(cls, *wrapper)
    return cls.__new__(cls)
