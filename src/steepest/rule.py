"""A rule is the four choices: norm, preconditioner, momentum, step length.

One step for a stack of gradients G (k, m, n):

    M = momentum(G)                  or G, with momentum after the oracle
    T = into(M)                      L^-T M R^-T, or M / D
    U = norm.direction(T)            unit ball of the base norm
    S = step(back(U))                L^-1 U R^-1, or U / D; times the dual norm for dual-scaled members
    S = momentum(S)                  for momentum after the oracle

With a Euclidean norm and dual scaling, T times its dual norm is T itself, so that S = solve(M): this is how
Adam, Adagrad and Shampoo are steepest descent.

A preconditioner that rotates sees the gradient in its bases already. Momentum is linear and lengths do not
change, so M, and all that follows up to S, then live there; S alone is rotated back.

A preconditioner may spend a step on statistics alone (then there is no direction), and update statistics
after their use. A step length may need one number of the whole network (a clipped or Polyak step): the
adapter then sums <M, S> over all parameters and multiplies every S by one factor.

Rules know nothing of ``torch.optim``, devices or groups: they read gradients and hyperparameters, update
the named state they are handed in place, and return a direction. They never see the weight.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal, cast, get_args

import torch
from torch import Size, Tensor

from steepest.momentum import Momentum, NoMomentum
from steepest.norms import Frobenius, Norm
from steepest.numeric import inner
from steepest.part import Part
from steepest.preconditioners import Identity, Preconditioner, Rotated
from steepest.steps import StepLength, UnitLMO

Decay = Literal["decoupled", "after", "l2", "cautious", "constrained"]
DECAYS = get_args(Decay)
Constraint = Literal["hyperball"]


@dataclass(frozen=True)
class Update:
    """What a rule returns: the step ``direction`` S and the ``momentum`` M the oracle saw, both (k, m, n).

    Both are read only: either may be a state buffer or the gradient itself.
    """

    direction: Tensor
    momentum: Tensor
    final: bool = False
    """Whether the direction is the whole move, length and decay included."""


@dataclass(frozen=True)
class Rule(Part):
    """One optimizer as a value: equal choices are equal rules.

    ``decay`` says how ``weight_decay`` acts: ``"decoupled"`` shrinks the weight by 1 - lr * weight_decay
    before the step, ``"after"`` after it, ``"l2"`` adds weight_decay * W to the gradient. ``"constrained"``
    moves towards the oracle's point instead of along it: W <- (1 - lr) W - lr S. ``"cautious"`` decays only
    the entries that the step S moves towards zero, where S * W > 0.

    ``constraint="hyperball"`` keeps the Frobenius norm R of every weight: the step is R S / |S|_F, so that lr
    is the angle of the step, and the weight is brought back to norm R after it.

    ``average`` keeps the weight's own exponential average, with coefficient ``ema``, beside it.

    >>> from steepest.momentum import EMA
    >>> from steepest.norms import Spectral
    >>> muon = Rule(norm=Spectral(), momentum=EMA(0.95, nesterov=True), step=UnitLMO("original"))
    >>> muon.hypers()
    {'momentum': 0.95}
    """

    norm: Norm = field(default_factory=Frobenius)
    preconditioner: Preconditioner = field(default_factory=Identity)
    momentum: Momentum = field(default_factory=NoMomentum)
    step: StepLength = field(default_factory=UnitLMO)
    decay: Decay = "decoupled"
    constraint: Constraint | None = None
    average: bool = False

    def __post_init__(self) -> None:
        for name, kind in (
            ("norm", Norm),
            ("preconditioner", Preconditioner),
            ("momentum", Momentum),
            ("step", StepLength),
        ):
            part = getattr(self, name)
            if not isinstance(part, kind):
                known = ", ".join(sorted(f"{c.__name__}()" for c in kind.__subclasses__()))
                raise TypeError(f"{name} must be a {kind.__name__} such as {known}; got {part!r}")
        if self.decay not in DECAYS:
            raise ValueError(f"decay must be one of {', '.join(map(repr, DECAYS))}, got {self.decay!r}")
        if self.constraint not in (None, "hyperball"):
            raise ValueError(f"constraint must be None or 'hyperball', got {self.constraint!r}")
        self._refuse_illegal()

    def _refuse_illegal(self) -> None:
        """Raise for choices that contradict each other."""
        if not self.solves:
            self.preconditioner.apart()
        if self.step.whole_network and self.momentum.where == "after":
            raise ValueError(
                f"{self.step!r} scales the network's step by <M, S>, which need not be positive with "
                "momentum after the oracle; use momentum with where='before'"
            )
        if self.decay == "constrained" and self.step.dual_scaled:
            raise ValueError(
                f"decay='constrained' moves towards a point of the unit ball, {self.step!r} leaves the ball; "
                "use a unit step"
            )
        if self.average and self.step.whole_network:
            raise ValueError(f"average=True needs a step length of each parameter's own, got {self.step!r}")
        if self.average and self.preconditioner.skipped:
            raise ValueError(
                f"average=True needs a preconditioner whose first step moves, got {self.preconditioner!r}"
            )
        if self.constraint and (self.step.whole_network or self.decay in ("constrained", "after")):
            raise ValueError(
                f"constraint={self.constraint!r} fixes length and norm of the step itself; it cannot be "
                f"combined with {self.step!r} and decay={self.decay!r}"
            )

    needs_weight: ClassVar[bool] = False
    """Whether ``update`` reads the weight, as ``hypers["weight"]``."""

    @property
    def matrix_only(self) -> bool:
        """Whether vectors and scalars need another rule."""
        return self.norm.matrix_only or self.preconditioner.matrix_only

    @property
    def solves(self) -> bool:
        """Whether the direction is ``solve(M)``, so that norm and coordinates are never needed apart."""
        return self.norm.euclidean and self.step.dual_scaled

    @property
    def turns(self) -> bool:
        """Whether momentum is kept in the bases of the preconditioner."""
        momentum = self.momentum
        return (
            self.preconditioner.turns
            and momentum.linear
            and momentum.where == "before"
            and not self.step.whole_network
        )

    @property
    def needs_step(self) -> bool:
        """Whether the state must count steps."""
        return self.momentum.needs_step or self.preconditioner.needs_step or self.scheduled

    @property
    def scheduled(self) -> bool:
        """Whether the count of steps decides what is computed, so that it is kept on the host."""
        return self.preconditioner.scheduled or self.average

    @property
    def batches(self) -> bool:
        """Whether matrices of one shape are cheaper when stacked."""
        return self.norm.batches or self.preconditioner.batches

    def hypers(self) -> dict[str, Any]:
        """Return the tunable numbers of all parts by name, with their defaults.

        Parts that share a name share one number; the preconditioner's default then goes before the step's.
        """
        own = {"ema": 0.999} if self.average else {}
        return {**self.momentum.hypers(), **self.step.hypers(), **self.preconditioner.hypers(), **own}

    def for_shape(self, shape: Size) -> Rule:
        """Return the rule for one parameter of this shape, batch dimensions left out."""
        return _for_shape(self, shape)

    def init(self, x: Tensor) -> dict[str, Tensor]:
        """Return the state for a stack ``x`` (k, m, n) before its first step."""
        own = {"average": torch.zeros_like(x)} if self.average else {}
        return {**self.momentum.init(x), **self.preconditioner.init(x), **own}

    def update(
        self, grad: Tensor, state: MutableMapping[str, Tensor], hypers: Mapping[str, Any]
    ) -> Update | None:
        """Return the step for ``grad`` (k, m, n), to be scaled by -lr and added to the weight.

        ``state`` is updated in place; ``hypers`` holds the numbers of :meth:`hypers`, and ``step``, the count
        from 1, where :attr:`needs_step`. None leaves the weight as it is.
        """
        if skipped := self.preconditioner.skipped:
            hypers = {**hypers, "step": hypers["step"] - skipped}
        if turns := self.turns:
            hypers = {**hypers, "turned": _buffers(self.momentum)}
        coordinates = self.preconditioner.prepare(grad, state, hypers)
        if coordinates is None:
            self.preconditioner.finish(grad, state, hypers)
            return None
        rotated = cast(Rotated, coordinates) if turns else None
        inside = rotated.inside if rotated else coordinates
        before = self.momentum.where == "before"
        m = cast(Tensor, rotated.gradient) if rotated else grad
        if before:
            m = self.momentum(m, state, hypers)
        if self.solves:
            s = inside.solve(m)
        else:
            t = inside.into(m)
            u = self.norm.direction(t)
            s = inside.back(u)
            if self.step.dual_scaled:
                s = s * inner(t, u)
        s = self.step(s, m, hypers)
        if not before:
            s = self.momentum(s, state, hypers)
        if rotated:
            s = rotated.restore(s)
        self.preconditioner.finish(grad, state, hypers)
        return Update(s, m)


@lru_cache(maxsize=256)
def _buffers(momentum: Momentum) -> tuple[str, ...]:
    """Return the names of the buffers that a momentum keeps."""
    return tuple(momentum.init(torch.empty(1, 1, 1, device="meta")))


@lru_cache(maxsize=4096)
def _for_shape(rule: Rule, shape: Size) -> Rule:
    norm, preconditioner = rule.norm.for_shape(shape), rule.preconditioner.for_shape(shape)
    if not rule.solves:
        preconditioner = preconditioner.apart()
    if norm is rule.norm and preconditioner is rule.preconditioner:
        return rule
    return replace(rule, norm=norm, preconditioner=preconditioner)
