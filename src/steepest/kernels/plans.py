"""What fused kernels understand: a recipe as plain facts, without its numbers.

A plan says which formula one pass computes. The numbers (lr, momentum, beta2, eps, weight_decay) come with
every step from the groups. Rules that fit no plan have no fused path. Two rules with equal plans share a
kernel, whatever optimizer they came from.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from torch import Size

from steepest.momentum import EMA, HeavyBall, Momentum, NoMomentum
from steepest.norms import Frobenius, Max
from steepest.preconditioners import Diagonal, Equilibration, Identity
from steepest.preconditioners.diagonal import EpsPlacement
from steepest.rule import Decay, Rule
from steepest.steps import SHAPE_SCALES, DualScaled, EnergyFloor, UnitLMO

DECAYS = ("decoupled", "after", "l2", "cautious")


@dataclass(frozen=True)
class Averaging:
    """Momentum of x in the buffer named ``buffer``.

    heavy_ball: M <- mu M + x; out = M, or x + mu M with Nesterov; with ``from_first`` the buffer is x before
    the update of step 1. ema: M <- mu M + (1 - mu) x; out = M, or mu M + (1 - mu) x with Nesterov; divided by
    1 - mu^t (mu^(t+1) with Nesterov) when ``corrected``.
    """

    kind: Literal["heavy_ball", "ema"]
    buffer: str
    nesterov: bool = False
    corrected: bool = False
    from_first: bool = False


@dataclass(frozen=True)
class SquareStatistic:
    """V <- beta2 V + (1 - beta2) g^2 in ``exp_avg_sq``, or V <- V + g^2 in ``sum``, and D^2 from it.

    As :class:`steepest.preconditioners.Diagonal` says, with c = 1 - beta2^t when ``corrected``, else 1. With
    eps = 0, D^2 = 0 counts as infinite.
    """

    buffer: Literal["exp_avg_sq", "sum"]
    power: float
    placement: EpsPlacement
    corrected: bool


@dataclass(frozen=True)
class Elementwise:
    """One pass: M from g, D^2 from g, then S = M / D^2, or with ``sign`` S = factor sign(M / D) / D.

    Without ``square`` D is 1; without ``averaging`` M is g.
    """

    averaging: Averaging | None
    square: SquareStatistic | None
    sign: bool
    factor: float
    decay: Decay


@dataclass(frozen=True)
class Normalized:
    """S = factor M / |M|_F for each matrix; S = 0 for M = 0."""

    averaging: Averaging | None
    factor: float
    decay: Decay


@dataclass(frozen=True)
class Equilibrated:
    """S = tau / (|H|_F + eps) H with H = g / (r_i + c_j + eps), tau = sqrt(|g|_F^2 + 1); then averaging of S.

    r and c are the row and column 2-norms of g (m, n). ``axis`` "rows" or "columns" has r or c alone, "none"
    H = g. With ``shift`` c_j is c_(j + shift mod n). S = 0 for g = 0. There is one eps.
    """

    averaging: Averaging | None
    axis: Literal["both", "rows", "columns", "none"]
    shift: int
    decay: Decay


Plan = Elementwise | Normalized | Equilibrated
"""All take g with ``maximize``'s sign and, for decay "l2", plus weight_decay * W. Every plan ends with the
weight's move of length lr along -S, with the decay of :class:`steepest.rule.Rule`."""


def plan_of(rule: Rule, shape: Size) -> Plan | None:
    """Return the plan of a rule already made for ``shape`` (batch dimensions left out), or None."""
    if type(rule) is not Rule or rule.decay not in DECAYS or rule.constraint or rule.average:
        return None
    m, n = (shape[0], shape[1:].numel()) if len(shape) > 1 else (1, shape.numel())
    return _plan_of(rule, max(1, m), max(1, n))


@lru_cache(maxsize=4096)
def _plan_of(rule: Rule, m: int, n: int) -> Plan | None:
    part, step = rule.preconditioner, rule.step
    averaging = _averaging(rule.momentum)
    before = rule.momentum.where == "before" or averaging is None
    if averaging is NotImplemented:
        return None
    factor = SHAPE_SCALES[step.scale](m, n) if type(step) is UnitLMO else None
    if type(part) in (Identity, Diagonal) and before:
        square = _square(part) if isinstance(part, Diagonal) else None
        if rule.solves and type(step) is DualScaled:
            return Elementwise(averaging, square, False, 1.0, rule.decay)
        if type(rule.norm) is Max and factor is not None:
            return Elementwise(averaging, square, True, factor, rule.decay)
        if type(rule.norm) is Frobenius and square is None and factor is not None:
            return Normalized(averaging, factor, rule.decay)
    if (
        type(part) in (Identity, Equilibration)
        and rule.norm.euclidean
        and type(step) is EnergyFloor
        and (averaging is None or not before)
    ):
        axis, shift = "none", 0
        if isinstance(part, Equilibration):
            axis, shift = part.axis, part.shift % n if part.mixing == "lateral" else 0
        return Equilibrated(averaging, axis, shift, rule.decay)
    return None


def _averaging(momentum: Momentum) -> Any:
    """Return the plan of a momentum: None for none, NotImplemented for one that has no plan."""
    if type(momentum) is NoMomentum:
        return None
    if type(momentum) is HeavyBall:
        return Averaging(
            "heavy_ball", "momentum_buffer", momentum.nesterov, from_first=momentum.start == "gradient"
        )
    if type(momentum) is EMA:
        return Averaging("ema", momentum.buffer, momentum.nesterov, momentum.bias_correction)
    return NotImplemented


def _square(part: Diagonal) -> SquareStatistic:
    buffer = "sum" if part.beta is None else "exp_avg_sq"
    return SquareStatistic(buffer, part.power, part.eps_placement, part.needs_step)


def buffers(plan: Plan) -> tuple[str, ...]:
    """Return the names of the state a plan reads and writes, beside the count of steps."""
    names = (plan.averaging.buffer,) if plan.averaging else ()
    return (*names, plan.square.buffer) if isinstance(plan, Elementwise) and plan.square else names
