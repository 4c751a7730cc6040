"""What `steepest list` and `steepest show` print: the docstrings of the optimizers and their recipes."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

import steepest
from steepest._resolve import TargetError, suggest
from steepest.optimizer import RuleOptimizer
from steepest.rule import Rule

TITLES = {
    "Formula": "Formula",
    "Neighbours": "Related methods",
    "From AdamW": "Learning rate, coming from AdamW",
    "State": "State",
    "When not to use": "When not to use it",
    "Args": "Arguments",
    "Source": "Source",
}
TUNABLE = ("momentum", "beta", "eps", "buffer")
CHOICES = ("norm", "preconditioner", "momentum", "step")


def methods() -> dict[str, type[RuleOptimizer]]:
    """Return the public optimizers of the library by name."""
    named = {name: getattr(steepest, name) for name in steepest.__all__}
    return {n: c for n, c in named.items() if isinstance(c, type) and issubclass(c, RuleOptimizer)}


def find(name: str) -> type[RuleOptimizer]:
    """Return the optimizer of this name; capitals do not matter.

    Raises:
        TargetError: there is none.
    """
    known = methods()
    folded = {known_name.casefold(): cls for known_name, cls in known.items()}
    if name.casefold() not in folded:
        hint = suggest(name, list(known)) or f"; choose from {', '.join(known)}"
        raise TargetError(f"no optimizer of steepest is named {name!r}{hint}")
    return folded[name.casefold()]


def summary(cls: type) -> str:
    """Return the first line of a class's docstring, without the class's own name."""
    first = inspect.getdoc(cls) or ""
    line = _plain(first.partition("\n")[0].removeprefix(f"{cls.__name__}: "))
    return line[:1].upper() + line[1:]


def sections(cls: type) -> dict[str, str]:
    """Return the sections of a class's docstring, unindented, by their titles."""
    found: dict[str, str] = {}
    parts = re.split(r"^(\w[\w ]*):\n", inspect.getdoc(cls) or "", flags=re.MULTILINE)
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        found[title] = _plain(inspect.cleandoc(body))
    return found


def choices(cls: type[RuleOptimizer]) -> dict[str, str]:
    """Return the four choices of an optimizer for a matrix at its defaults, as text."""
    arguments: dict[str, Any] = {}
    if inspect.signature(cls).parameters["lr"].default is inspect.Parameter.empty:
        arguments["lr"] = 1.0
    optimizer = cls([torch.nn.Parameter(torch.zeros(2, 2))], **arguments)
    rule: Rule = cls.recipe(optimizer.param_groups[0])
    return {name: _part(getattr(rule, name)) for name in CHOICES}


def _part(part: Any) -> str:
    """Write a part with what differs from its defaults; its numbers are the optimizer's arguments."""
    told = [
        f"{f.name}={getattr(part, f.name)!r}"
        for f in dataclasses.fields(part)
        if f.name not in TUNABLE and getattr(part, f.name) != f.default
    ]
    return type(part).__name__ + (f"({', '.join(told)})" if told else "")


def print_list(console: Console) -> None:
    """Print one line per optimizer."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, cls in methods().items():
        table.add_row(Text(name, style="bold"), Text(summary(cls)))
    console.print(table)
    console.print("\n`steepest show NAME` explains one.", highlight=False, markup=False)


def print_method(console: Console, name: str) -> None:
    """Print what there is to know of an optimizer."""
    cls = find(name)
    _print(console, f"{cls.__name__}: {summary(cls)}", "bold")
    _print(console, f"steepest.{cls.__name__}{_signature(cls)}")
    told = sections(cls)
    for key, title in TITLES.items():
        if key in told:
            _section(console, title, told[key])
        if key == "Formula":
            _section(console, "Four choices", "\n".join(f"{k:15}{v}" for k, v in choices(cls).items()))


def _section(console: Console, title: str, body: str) -> None:
    _print(console, f"\n{title}", "bold")
    for line in body.splitlines():
        _print(console, f"  {line}")


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)


def _signature(cls: type) -> str:
    signature = inspect.signature(cls)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def _plain(text: str) -> str:
    """Drop the marks that only documentation builders read."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?([\w]+)`", r"\1", text)
    return text.replace("``", "")
