"""What the library knows of its own methods: docstrings by section, and the four choices of each."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import torch

import steepest
from steepest.optimizer import RuleOptimizer
from steepest.part import Part

CHOICES = ("norm", "preconditioner", "momentum", "step")
ARGUMENTS = ("momentum", "beta", "eps", "buffer", "initial", "max_dim")
"""Fields of parts that are the optimizer's own arguments, and so not part of what it is."""


def methods() -> dict[str, type[RuleOptimizer]]:
    """Return the public optimizers of the library by name."""
    named = {name: getattr(steepest, name) for name in sorted(steepest.__all__, key=str.casefold)}
    return {n: c for n, c in named.items() if isinstance(c, type) and issubclass(c, RuleOptimizer)}


def summary(cls: type) -> str:
    """Return the first line of a class's docstring, without the class's own name."""
    line = (inspect.getdoc(cls) or "").partition("\n")[0].removeprefix(f"{cls.__name__}: ")
    return line[:1].upper() + line[1:]


def sections(cls: type) -> dict[str, str]:
    """Return the sections of a class's docstring, unindented, by their titles."""
    parts = re.split(r"^(\w[\w ]*):\n", inspect.getdoc(cls) or "", flags=re.MULTILINE)
    return {title: inspect.cleandoc(body) for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def choices(cls: type[RuleOptimizer]) -> dict[str, str]:
    """Return the four choices of an optimizer for a matrix at its defaults, as text."""
    rule = cls.recipe(build(cls, torch.nn.Linear(2, 2, bias=False)).param_groups[0])
    return {name: _written(getattr(rule, name)) for name in CHOICES}


def build(cls: type[RuleOptimizer], model: torch.nn.Module, **settings: Any) -> RuleOptimizer:
    """Return an optimizer of a model's parameters at its defaults; what has no default is 1."""
    parameters = inspect.signature(cls).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    first: Any = model if required[0] == "model" else model.parameters()
    make: Any = cls
    return make(first, **{**dict.fromkeys(required[1:], 1.0), **settings})


def plain(text: str) -> str:
    """Return docstring text without the marks that only documentation builders read."""
    return marked(text).replace("`", "")


def marked(text: str) -> str:
    """Return docstring text with Markdown's marks for code."""
    return re.sub(r":\w+:`~?(?:[\w.]+\.)?([\w]+)`", r"`\1`", text).replace("``", "`")


def _written(part: Any) -> str:
    """Return a part with what differs from its defaults; its numbers are the optimizer's arguments."""
    told = []
    for f in dataclasses.fields(part):
        value = getattr(part, f.name)
        default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        if f.name == "beta" and value is None and not hasattr(part, "inside"):
            told.append("sum")
        elif f.name not in ARGUMENTS and value != default:
            told.append(f"{f.name}={_value(value)}")
    return type(part).__name__ + (f"({', '.join(told)})" if told else "")


def _value(value: Any) -> str:
    if isinstance(value, Part):
        return _written(value)
    return f"{value:.3g}" if isinstance(value, float) else repr(value)
