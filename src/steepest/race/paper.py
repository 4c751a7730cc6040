"""What a source paper did on a task, and what it says came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from steepest.race.records import RaceError
from steepest.race.schedules import check_schedule
from steepest.spelling import Spelled

RELATIONS = ("better", "no worse", "equal")
HIGHER_IS_BETTER = ("accuracy", "matthews")


@dataclass(frozen=True)
class Paper(Spelled):
    """The settings of a paper's own experiment, for ``--protocol paper``.

    Args:
        source: the paper, and where in it.
        steps: steps of one run.
        batch_size: examples in a batch.
        seeds: all of its seeds; learning rates are swept on the first.
        fixed: optimizers that the paper ran at one learning rate: their names and that rate.
        swept: optimizers whose learning rate the paper chose, and the rates it tried.
        kwargs: further arguments by optimizer; ``{"Muon": {"aux": {"lr": 1e-3}}}`` fixes the learning rate
            that a hybrid's auxiliary AdamW has. Where nothing is said it has AdamW's rate of the task.
        schedule: of the learning rate: "constant", "linear" or "cosine".
        warmup: part of the steps over which the learning rate rises first.

    Raises:
        RaceError: a value is out of range, or an optimizer is both fixed and swept.
    """

    source: str
    steps: int
    batch_size: int
    seeds: tuple[int, ...]
    fixed: Mapping[str, float] = field(default_factory=dict)
    swept: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    kwargs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    schedule: str = "constant"
    warmup: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("batch_size", self.batch_size)):
            if value < 1:
                raise RaceError(f"Paper.{name} must be at least 1, got {value!r}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise RaceError(f"Paper.seeds must be different numbers, at least one, got {self.seeds!r}")
        if not self.fixed and not self.swept:
            raise RaceError("Paper must name the optimizers it ran, in fixed or in swept")
        if both := sorted(set(self.fixed) & set(self.swept)):
            raise RaceError(f"Paper.fixed and Paper.swept both name {', '.join(both)}")
        if strange := sorted(set(self.kwargs) - set(self.optimizers)):
            raise RaceError(f"Paper.kwargs names {', '.join(strange)}, which is neither fixed nor swept")
        for name, rates in self.rates.items():
            if not rates or any(not rate > 0 for rate in rates):
                raise RaceError(f"Paper: the learning rates of {name} must be positive, got {rates!r}")
        check_schedule(self.schedule, self.warmup)

    @property
    def optimizers(self) -> tuple[str, ...]:
        """The optimizers the paper ran, the fixed ones first."""
        return (*self.fixed, *self.swept)

    @property
    def rates(self) -> dict[str, tuple[float, ...]]:
        """The learning rates of each optimizer: one, if it was not swept."""
        return {name: (rate,) for name, rate in self.fixed.items()} | dict(self.swept)


@dataclass(frozen=True)
class Claim(Spelled):
    """A statement of a paper about its results, as a comparison that a race can check.

    Args:
        source: the paper, and where in it.
        text: the statement in words.
        left: an optimizer's name.
        relation: ``"better"``, ``"no worse"`` or ``"equal"``.
        right: another optimizer's name, or a number.
        metric: which of the final metrics is compared; see `higher_is_better`.
        margin: the difference, in the metric's unit, up to which two results count as equal.

    Raises:
        RaceError: the relation is none of the three, or the margin is negative.
    """

    source: str
    text: str
    left: str
    relation: str
    right: str | float
    metric: str = "val_loss"
    margin: float = 0.0

    def __post_init__(self) -> None:
        if self.relation not in RELATIONS:
            raise RaceError(f"Claim.relation must be one of {', '.join(RELATIONS)}, got {self.relation!r}")
        if not self.margin >= 0:
            raise RaceError(f"Claim.margin must not be negative, got {self.margin!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain data, as records keep them."""
        return asdict(self)


def higher_is_better(metric: str) -> bool:
    """Say whether a larger value of a metric is a better result: accuracies and Matthews' coefficients."""
    return any(word in metric.casefold() for word in HIGHER_IS_BETTER)
