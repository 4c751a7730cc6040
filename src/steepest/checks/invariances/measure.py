"""Whether an optimizer's path depends on its coordinates: two matched trajectories and their distance."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from steepest._resolve import load_target
from steepest.checks.invariances.problem import MODELS, STANDARD, Problem
from steepest.checks.invariances.transforms import TRANSFORMS, Transform
from steepest.spelling import suggest

INVARIANT, DEPENDENT = 1e-8, 1e-4
"""A deviation up to the first is invariance, one above the second is not; nothing should lie between."""

FIRST_STEP = 0.01
"""Length of the first step, relative to the weights, that the learning rate is chosen for."""

LIMITS: dict[str, Any] = {"eps": 0.0, "damping": 0.0, "orthogonalizer": "svd"}
"""Arguments set, where the constructor has them, to take the published rule to its limit."""

SMALLEST = 1e-30
"""The ``eps`` of classes that refuse 0."""

Verdict = Literal["yes", "no", "unclear", "undefined"]


@dataclass(frozen=True)
class Invariance:
    """What was measured for one optimizer.

    Attributes:
        name: the class, or the label of the table.
        arguments: what it was built with, besides lr.
        lr: the learning rate of each model.
        steps: the length of the trajectories.
        deviations: for each transform and model the deviation; ``inf`` where only one of the two trajectories
        stayed
            finite, None where the method is not defined in those coordinates.
    """

    name: str
    arguments: Mapping[str, Any]
    lr: Mapping[str, float]
    steps: int
    deviations: Mapping[str, Mapping[str, float | None]]

    def deviation(self, transform: str) -> float | None:
        """Return the largest deviation over the models; None where the method is not defined."""
        values = [value for value in self.deviations[transform].values() if value is not None]
        return max(values) if values else None

    def verdict(self, transform: str) -> Verdict:
        """Return ``"yes"``, ``"no"``, ``"unclear"`` (between the thresholds) or ``"undefined"``."""
        value = self.deviation(transform)
        if value is None:
            return "undefined"
        if value <= INVARIANT:
            return "yes"
        return "no" if value > DEPENDENT else "unclear"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for ``json.dumps``; arguments that are objects become text."""
        plain = asdict(self)
        plain["arguments"] = {k: _plain(v) for k, v in self.arguments.items()}
        plain["deviations"] = {
            name: {model: _plain(value) for model, value in values.items()}
            for name, values in self.deviations.items()
        }
        return {**plain, "verdicts": {name: self.verdict(name) for name in self.deviations}}

    def __str__(self) -> str:
        lines = [
            f"  {name:<9} {cell(self.deviation(name)):>8}  {self.verdict(name)}" for name in self.deviations
        ]
        return "\n".join([f"{self.name}, {self.steps} steps", *lines])


def invariance(
    cls_or_name: type[torch.optim.Optimizer] | str,
    *,
    iterations: int = 30,
    transforms: str | Iterable[str] | None = None,
    models: str | Iterable[str] | None = None,
    strength: float = 1.0,
    seed: int = 0,
    label: str | None = None,
    **kwargs: Any,
) -> Invariance:
    """Measure to which changes of coordinates an optimizer is invariant, on a small real problem in float64.

    The problem (see :mod:`steepest.checks.invariances.problem`) is trained twice from the same point on the
    same batches with the same hyperparameters: in its own coordinates, W_t, and in others, W'_t, where W =
    phi^-1(W').

        deviation = max_t |phi^-1(W'_t) - W_t| / max_t |W_t - W_0|

    over all matrices together, in the Frobenius norm. Up to 1e-8 the optimizer counts as invariant, above
    1e-4 as not. The changes phi, drawn for each matrix: ``"entries"`` W / s with s = exp(u), u uniform in
    [-strength, strength]; ``"rows"`` and ``"columns"``, the same for whole rows and columns; ``"affine"`` A W
    B with invertible A, B of condition at most exp(2 strength); ``"rotation"`` with orthogonal A, B;
    ``"loss"`` leaves W and multiplies the loss by 10.

    ``eps`` and ``damping`` are set to 0 (``eps`` to 1e-30 for classes that refuse 0) and ``orthogonalizer``
    to ``"svd"`` where the constructor has them; everything else keeps its default. ``lr`` is such that the
    first step has a hundredth of the weights' length.

    Args:
        cls_or_name: an optimizer class, ``"module:Class"``, or a name of steepest or ``torch.optim``. One
            whose constructor begins with ``model`` is given the model.
        iterations: steps of each trajectory, >= 2. Default 30.
        transforms: names of changes to measure. Default: all.
        models: any of ``"linear"``, ``"mlp"`` and ``"pixels"``. Default: the first two.
        strength: how far the new coordinates are from the old, > 0. Default 1.
        seed: of weights, batches and changes. Default 0.
        label: the name in the result. Default: the class's.
        **kwargs: constructor arguments. Default: see above.

    Returns:
        :class:`Invariance`.

    Raises:
        TargetError: a name that leads to no optimizer.
        TypeError, ValueError: bad arguments, here or of the constructor.
        RuntimeError: the optimizer does not move or leaves finite numbers on the untransformed problem.
        ModuleNotFoundError: scikit-learn, which has the data, is missing.

    Example:
        >>> import torch
        >>> from steepest.checks import invariance
        >>> found = invariance(torch.optim.SGD, iterations=5, models="linear")
        >>> found.verdict("rotation"), found.verdict("rows")
        ('yes', 'no')
    """
    cls = load_target(cls_or_name) if isinstance(cls_or_name, str) else cls_or_name
    if not (isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer)):
        raise TypeError(f"cls_or_name must be an optimizer class or its name, got {cls_or_name!r}")
    if not isinstance(iterations, int) or iterations < 2:
        raise ValueError(f"iterations must be an integer >= 2, got {iterations!r}")
    if not 0 < strength <= 5:
        raise ValueError(f"strength must be in (0, 5], got {strength!r}")
    chosen = _chosen("transforms", transforms, TRANSFORMS, tuple(TRANSFORMS))
    runs = Runs(cls, kwargs, iterations, strength, seed)
    rates: dict[str, float] = {}
    found: dict[str, dict[str, float | None]] = {name: {} for name in chosen}
    for model in _chosen("models", models, MODELS, STANDARD):
        lr = runs.learning_rate(model)
        if lr is not None:
            rates[model] = lr
        path = runs.trajectory(model, lr)
        if len(path) <= iterations:
            raise RuntimeError(
                f"{cls.__name__} does not stay finite for {iterations} steps on the {model} problem "
                f"(lr={lr!r}, {runs.kwargs!r})"
            )
        if all(torch.equal(point, path[0]) for point in path):
            raise RuntimeError(f"{cls.__name__} does not move with {runs.kwargs!r}")
        for name in chosen:
            found[name][model] = runs.deviation(model, lr, path, TRANSFORMS[name])
    return Invariance(label or cls.__name__, runs.kwargs, rates, iterations, found)


class Runs:
    """Trajectories of one optimizer class with one set of arguments."""

    def __init__(
        self, cls: type[torch.optim.Optimizer], kwargs: dict[str, Any], steps: int, strength: float, seed: int
    ):
        parameters = inspect.signature(cls.__init__).parameters
        self.cls, self.steps, self.strength, self.seed = cls, steps, strength, seed
        self.kwargs = {k: v for k, v in LIMITS.items() if k in parameters and not _is_tuple(parameters[k])}
        self.kwargs.update(kwargs)
        self.takes_lr = "lr" in parameters and "lr" not in kwargs
        self.takes_model = list(parameters)[1:2] == ["model"]
        if "eps" in self.kwargs and "eps" not in kwargs and not self._accepts_limits():
            self.kwargs["eps"] = SMALLEST

    def _build(self, problem: Problem, lr: float | None) -> Any:
        options = self.kwargs if lr is None else {**self.kwargs, "lr": lr}
        target: Any = problem if self.takes_model else problem.parameters()
        return self.cls(target, **options)

    def _accepts_limits(self) -> bool:
        try:
            self._build(Problem("linear"), 0.01 if self.takes_lr else None)
        except ValueError:
            return False
        return True

    def learning_rate(self, model: str) -> float | None:
        """Return the lr whose first step that moves has length FIRST_STEP |W_0|; None if there is no lr.

        Steps need not be proportional to lr (MADGRAD's are not), so it is found by iteration.
        """
        if not self.takes_lr:
            return None
        lr = 0.01
        for _ in range(12):
            size = self._first_step(model, lr)
            if size is not None and abs(size / FIRST_STEP - 1) < 0.01:
                break
            lr *= 1e-3 if size is None else FIRST_STEP / size
        return float(f"{lr:.3g}")

    def _first_step(self, model: str, lr: float) -> float | None:
        """Return the relative length of the first step that moves; None if it is not finite."""
        path = self.trajectory(model, lr, steps=3)
        for point in path[1:]:
            size = ((point - path[0]).norm() / path[0].norm()).item()
            if size > 0:
                return size
        if len(path) < 4:
            return None
        raise RuntimeError(f"{self.cls.__name__} does not move in {len(path) - 1} steps with lr={lr:g}")

    def trajectory(
        self, model: str, lr: float | None, transform: Transform | None = None, steps: int | None = None
    ) -> list[Tensor]:
        """Return W_0, W_1, ..., mapped back; it ends before the first that is not finite."""
        problem = Problem(model, transform, strength=self.strength, seed=self.seed)
        optimizer = self._build(problem, lr)
        path = [problem.position()]
        # Rules that draw random numbers draw the same ones in every run.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            for _ in range(self.steps if steps is None else steps):
                batch = problem.batch()

                def closure(batch: tuple[Tensor, Tensor] = batch) -> Tensor:
                    with torch.enable_grad():
                        optimizer.zero_grad()
                        loss = problem.loss(batch)
                        loss.backward()
                    return loss.detach()

                try:
                    optimizer.step(closure)
                except FloatingPointError:
                    break
                point = problem.position()
                if not torch.isfinite(point).all():
                    break
                path.append(point)
        return path

    def deviation(
        self, model: str, lr: float | None, path: list[Tensor], transform: Transform
    ) -> float | None:
        """Return the deviation in other coordinates from ``path``; None where the method is undefined."""
        if self.takes_model and not transform.draw(2, 2, self.strength, torch.Generator()).as_layer:
            return None
        other = self.trajectory(model, lr, transform)
        if len(other) < len(path):
            return math.inf
        apart = max((a - b).norm().item() for a, b in zip(other, path, strict=True))
        return apart / max((point - path[0]).norm().item() for point in path)


def cell(value: float | None) -> str:
    """Return a deviation as the table prints it."""
    if value is None:
        return "-"
    return f"{value:.2g}"


def _chosen(
    argument: str, names: str | Iterable[str] | None, known: Mapping[str, Any], standard: tuple[str, ...]
) -> list[str]:
    listed = [names] if isinstance(names, str) else list(standard if names is None else names)
    if not listed:
        raise ValueError(f"{argument} must be among {', '.join(known)}, got none")
    for name in listed:
        if name not in known:
            hint = suggest(name, list(known)) if isinstance(name, str) else ""
            raise ValueError(f"{argument} must be among {', '.join(known)}, got {name!r}{hint}")
    return listed


def _is_tuple(parameter: inspect.Parameter) -> bool:
    """Whether the default is several numbers, as torch's Adafactor has for eps."""
    return isinstance(parameter.default, tuple)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and math.isinf(value):
        return "inf"
    return value if isinstance(value, (int, float, str, bool, type(None))) else str(value)
