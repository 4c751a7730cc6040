"""The second stage of a search: more arguments than the learning rate, by optuna, the same for everyone.

Every optimizer gets the same number of trials. A trial varies the arguments asked for, as far as the
optimizer has them, over the ranges of `RANGES`, and the learning rate within half a decade of the best one
of the first stage; an optimizer that has none of the arguments spends its trials on the learning rate. The
result of the first stage competes too. Trials are proposed by optuna's tree-structured Parzen estimator in
waves: a wave is a function of the results of all earlier waves and of a fixed seed, so it depends neither
on the number of workers nor on where a race was interrupted.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from steepest.race.contenders import Contender
from steepest.race.records import RaceError
from steepest.spelling import suggest

# What an argument may become, each on a log scale. Averaging coefficients are told as 1 - coefficient; of
# several in `betas` the first is of the first moment, the others of later ones.
RANGES: dict[str, tuple[float, float]] = {
    "1 - momentum": (0.005, 0.5),
    "1 - betas[0]": (0.01, 0.5),
    "1 - betas[1:]": (5e-4, 0.2),
    "weight_decay": (1e-4, 1.0),
}
TUNABLE = ("momentum", "betas", "weight_decay")
LR_FACTOR = math.sqrt(10)
WAVE = 4
RANDOM_TRIALS = 8
SEED = 0
DIGITS = 3


@dataclass(frozen=True)
class Space:
    """Names of what varies, each with its lowest and highest value; see `RANGES` for the names."""

    ranges: tuple[tuple[str, float, float], ...]

    def start(self, contender: Contender, lr: float) -> dict[str, float] | None:
        """Return where the first stage ended, if all of it lies in the space."""
        point = {"lr": lr}
        for name, _, _ in self.ranges[1:]:
            argument, index = _argument(name)
            value = _value_of(contender, argument)
            value = value if index is None else value[index]
            point[name] = float(value if argument == "weight_decay" else 1 - value)
        inside = all(low <= point[name] <= high for name, low, high in self.ranges)
        return point if inside else None

    def settings(self, point: Mapping[str, float], contender: Contender) -> tuple[float, dict[str, Any]]:
        """Return the learning rate and the arguments of a point."""
        found: dict[str, Any] = {}
        for name, _, _ in self.ranges[1:]:
            argument, index = _argument(name)
            value = _rounded(point[name])
            if argument == "weight_decay":
                found[argument] = value
            elif index is None:
                found[argument] = _complement(value)
            else:
                found[argument] = (*found.get(argument, ()), _complement(value))
        return _rounded(point["lr"]), {**contender.kwargs, **found}


def space_of(contender: Contender, tuned: Sequence[str], lr: float) -> Space:
    """Return what the trials of an optimizer vary around the best learning rate of the first stage."""
    ranges = [("lr", lr / LR_FACTOR, lr * LR_FACTOR)]
    for argument in tuned:
        value = _value_of(contender, argument)
        if value is None:
            continue
        if argument == "betas":
            ranges.append(("1 - betas[0]", *RANGES["1 - betas[0]"]))
            ranges += [(f"1 - betas[{i}]", *RANGES["1 - betas[1:]"]) for i in range(1, len(value))]
        elif argument == "momentum":
            ranges.append(("1 - momentum", *RANGES["1 - momentum"]))
        else:
            ranges.append((argument, *RANGES[argument]))
    return Space(tuple(ranges))


@lru_cache(maxsize=256)
def next_wave(
    space: Space,
    start: tuple[tuple[str, float], ...],
    start_loss: float,
    losses: tuple[float, ...],
    size: int,
) -> tuple[dict[str, float], ...]:
    """Return the points to try after the waves whose losses are given.

    Args:
        space: what varies.
        start: the items of ``Space.start``, or nothing.
        start_loss: the loss there.
        losses: of all earlier waves in the order they were proposed; infinite for a run without result.
        size: how many points.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(low, high, log=True) for name, low, high in space.ranges
    }
    sampler = optuna.samplers.TPESampler(seed=SEED, n_startup_trials=RANDOM_TRIALS)
    study = optuna.create_study(sampler=sampler)
    if start:
        first = optuna.trial.create_trial(params=dict(start), distributions=distributions, value=start_loss)
        study.add_trial(first)
    for wave in range(0, len(losses), WAVE):
        asked = [study.ask(distributions) for _ in losses[wave : wave + WAVE]]
        for trial, loss in zip(asked, losses[wave:], strict=False):
            study.tell(trial, loss)
    return tuple(dict(study.ask(distributions).params) for _ in range(size))


def check_tuning(tuned: Sequence[str], trials: int, contenders: Sequence[Contender]) -> None:
    """Refuse a search that cannot be done.

    Raises:
        RaceError: an argument is not one of `TUNABLE` or nobody has it, only one of arguments and trials is
            given, or optuna is not installed.
    """
    if not tuned and not trials:
        return
    if not tuned or trials < 1:
        raise RaceError("--tune ARGUMENTS and --trials N belong together: give both")
    for argument in tuned:
        if argument not in TUNABLE:
            hint = suggest(argument, list(TUNABLE))
            raise RaceError(f"--tune must be of {', '.join(TUNABLE)}, got {argument!r}{hint}")
        if all(_value_of(contender, argument) is None for contender in contenders):
            raise RaceError(f"--tune {argument}: no optimizer of this race has this argument")
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise RaceError("--tune needs optuna: pip install 'steepest[tune]'") from None


def _value_of(contender: Contender, argument: str) -> Any:
    """Return what an optimizer has an argument at: as fixed, else its default; None if it has it not."""
    if argument in contender.kwargs:
        return contender.kwargs[argument]
    parameter = inspect.signature(contender.load()).parameters.get(argument)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def _argument(name: str) -> tuple[str, int | None]:
    """Split "1 - betas[1]" into the argument and the place in it."""
    argument, bracket, rest = name.removeprefix("1 - ").partition("[")
    return argument, int(rest.rstrip("]")) if bracket else None


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _complement(value: float) -> float:
    return round(1 - value, 6)
