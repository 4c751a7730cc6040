"""The class under test together with the small deterministic problems the checks pose to it."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from steepest.checks.registry import NotApplicable, NotClaimed

__all__ = ["REFUSALS", "Subject", "displacement", "find_group", "same_bits", "snapshot"]

MATRIX, SMALL, VECTOR, CONV = (20, 18), (6, 5), (7,), (4, 3, 2, 2)
# What a constructor may raise to say that it does not take something.
REFUSALS = (ValueError, TypeError, NotImplementedError)

Gradient = Callable[[int, int, Tensor], Tensor]


class Subject:
    """Builds, drives and inspects one optimizer class.

    Gradients are functions of (step, parameter index, parameter), never of a global random state, so that any
    two runs can be compared bit for bit.
    """

    def __init__(self, cls: type[torch.optim.Optimizer], kwargs: dict[str, Any], device: str = "cpu"):
        self.cls = cls
        self.device = torch.device(device)
        self.signature = inspect.signature(cls.__init__)
        self.kwargs = self._with_lr(kwargs)
        self._shapes: list[tuple[int, ...]] | None = None
        parameter = inspect.signature(cls.step).parameters.get("closure")
        self.closure_required = parameter is not None and parameter.default is inspect.Parameter.empty

    def _with_lr(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        parameters = list(self.signature.parameters.values())[2:]
        kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        required = [
            p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in kinds
        ]
        missing = [name for name in required if name not in kwargs]
        full = dict(kwargs)
        if "lr" in missing:
            full["lr"] = 0.01
            missing.remove("lr")
        if missing:
            name = missing[0]
            raise TypeError(
                f"{self.cls.__name__} needs the argument {name!r}: check_optimizer(..., {name}=...)"
            )
        return full

    # Building

    def build(self, params: Any, **overrides: Any) -> Any:
        """An instance with the arguments of this run; exceptions are the class's own."""
        return self.cls(params, **{**self.kwargs, **overrides})

    def takes(self, argument: str, value: Any = None) -> bool:
        """Whether the constructor knows ``argument``; a ``**kwargs`` constructor is tried with ``value``."""
        parameters = self.signature.parameters
        if argument in parameters:
            return True
        if all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            return False
        try:
            optimizer = self.build(self.params(self.shapes()[:1]), **{argument: value})
        except REFUSALS:
            return False
        return argument in optimizer.defaults or any(argument in group for group in optimizer.param_groups)

    def is_number(self, argument: str) -> bool:
        """Whether the argument holds numbers here; some constructors take an object under the same name."""
        declared = self.signature.parameters.get(argument)
        value = self.kwargs.get(argument, declared.default if declared else inspect.Parameter.empty)
        return value is inspect.Parameter.empty or isinstance(value, (int, float, tuple, list, Tensor))

    def claim(self, argument: str, value: Any = None) -> None:
        """Raise :class:`NotClaimed` unless the constructor takes ``argument``."""
        if not self.takes(argument, value):
            raise NotClaimed(f"the constructor has no argument {argument!r}")

    def build_or_unclaimed(self, params: Any, what: str, **overrides: Any) -> Any:
        """An instance, or :class:`NotClaimed` when the constructor refuses with a clear error."""
        try:
            return self.build(params, **overrides)
        except REFUSALS as error:
            raise NotClaimed(f"{what} refused at construction: {_text(error)}") from error

    def params(
        self, shapes: Iterable[Sequence[int]] | None = None, dtype: torch.dtype = torch.float32, seed: int = 0
    ) -> list[Parameter]:
        """Fresh parameters of the given shapes, or one of each shape the class accepts."""
        return [
            Parameter((0.3 * noise(shape, 1000 + seed, index)).to(self.device, dtype))
            for index, shape in enumerate(self.shapes() if shapes is None else shapes)
        ]

    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the standard problem the class can take a step on, matrices first."""
        if self._shapes is None:
            self._shapes = [shape for shape in (MATRIX, SMALL, VECTOR, CONV) if self._can_step(shape)]
        return self._shapes or [MATRIX]

    def _can_step(self, shape: tuple[int, ...]) -> bool:
        try:
            params = self.params([shape])
            self.run(self.build(params), params, 1)
        except Exception:
            return False
        return True

    def pair(self, dtype: torch.dtype = torch.float32) -> list[Parameter]:
        """Two parameters of one accepted shape, for tests that need two groups."""
        return self.params([self.shapes()[0]] * 2, dtype)

    def twin(self, params: Iterable[Tensor]) -> list[Parameter]:
        """Fresh parameters with the values (and strides) of ``params``."""
        return [Parameter(p.detach().clone()) for p in params]

    # Driving

    def gradient(self, step: int, index: int, param: Tensor) -> Tensor:
        """The standard gradient: noise plus a pull towards zero."""
        return noise(param.shape, step, index).to(param.device, param.dtype) + 0.1 * param.detach()

    def step(
        self, optimizer: Any, params: Sequence[Tensor], t: int, gradient: Gradient | None = None
    ) -> None:
        """One step at time ``t``; parameters whose gradient function returns None keep ``grad = None``."""
        make = gradient or self.gradient

        def fill() -> Tensor:
            with torch.no_grad():
                for index, param in enumerate(params):
                    param.grad = make(t, index, param)
            return torch.zeros((), device=self.device)

        fill()
        if self.closure_required:
            optimizer.step(fill)
        else:
            optimizer.step()

    def run(
        self,
        optimizer: Any,
        params: Sequence[Tensor],
        steps: int,
        start: int = 0,
        gradient: Gradient | None = None,
    ) -> list[Tensor]:
        """``steps`` steps from time ``start``; returns copies of the parameters afterwards."""
        torch.manual_seed(start)  # rules that draw random numbers draw the same ones in every run
        for t in range(start, start + steps):
            self.step(optimizer, params, t, gradient)
        return snapshot(params)

    def trajectory(self, params: Sequence[Parameter], steps: int = 5, **overrides: Any) -> list[Tensor]:
        """Build on ``params``, run, and return copies of the result."""
        return self.run(self.build(list(params), **overrides), params, steps)


def noise(shape: Sequence[int], step: int, index: int) -> Tensor:
    """Standard normal float64 numbers that depend on nothing but the arguments. Not to be written to."""
    return _noise(tuple(shape), step, index)


@functools.lru_cache(maxsize=2048)
def _noise(shape: tuple[int, ...], step: int, index: int) -> Tensor:
    generator = torch.Generator().manual_seed(7919 * step + 104729 * index + 1)
    return torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")


def snapshot(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Detached copies."""
    return [tensor.detach().clone() for tensor in tensors]


def state_of(optimizer: Any, param: Tensor) -> dict[str, Any]:
    """The state of one parameter; empty if it has none. Asking must not create an entry."""
    return dict(optimizer.state.get(param, {}))


def state_snapshot(optimizer: Any) -> dict[Any, dict[str, Any]]:
    """A copy of the state that keeps its keys (the parameters themselves)."""
    return {param: copy.deepcopy(values) for param, values in optimizer.state.items()}


def state_tensors(value: Any, path: str = "") -> list[tuple[str, Tensor]]:
    """Every tensor inside a nest of dictionaries and lists, with a path that names it."""
    if isinstance(value, Tensor):
        return [(path, value)]
    if isinstance(value, dict):
        return [item for key, inner in value.items() for item in state_tensors(inner, f"{path}[{key!r}]")]
    if isinstance(value, (list, tuple)):
        return [item for key, inner in enumerate(value) for item in state_tensors(inner, f"{path}[{key}]")]
    return []


def same_bits(left: Any, right: Any) -> bool:
    """Equality of nests of tensors and plain values: dtype, shape and every bit (NaN equals itself)."""
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        if left.dtype != right.dtype or left.shape != right.shape:
            return False
        return torch.equal(_bits(left), _bits(right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_bits(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(same_bits(a, b) for a, b in zip(left, right, strict=True))
    return bool(left == right) or bool(left != left and right != right)


def _bits(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().contiguous()
    return tensor.reshape(-1).view(torch.uint8) if tensor.numel() else tensor.reshape(-1)


def displacement(start: Sequence[Tensor], left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    """The largest, over parameters, of |left - right| divided by the distance travelled, in 2-norm."""
    worst = 0.0
    for origin, a, b in zip(start, left, right, strict=True):
        difference = (a.detach().double() - b.detach().double()).norm().item()
        travelled = (b.detach().double() - origin.detach().double()).norm().item()
        if difference != 0:
            worst = max(worst, difference / travelled if travelled else float("inf"))
        if difference != difference:
            return float("nan")
    return worst


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every entry of every tensor is finite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def find_group(optimizer: Any, param: Tensor) -> dict[str, Any]:
    """The one group that holds ``param``; constructors are free to split the groups they are given."""
    found = [group for group in optimizer.param_groups if any(param is other for other in group["params"])]
    if len(found) != 1:
        raise LookupError(f"a parameter of shape {tuple(param.shape)} is in {len(found)} groups, not in one")
    return found[0]


def set_everywhere(optimizer: Any, name: str, value: Any) -> None:
    """Set one hyperparameter in every group that has it."""
    for group in optimizer.param_groups:
        if name in group:
            group[name] = value


def need(condition: object, reason: str) -> None:
    """Raise :class:`NotApplicable` unless ``condition`` holds."""
    if not condition:
        raise NotApplicable(reason)


def _text(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}"
