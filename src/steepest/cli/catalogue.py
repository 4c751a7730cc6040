"""`steepest list` and `steepest show`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from steepest._resolve import TargetError
from steepest.catalogue import choices, methods, plain, sections, summary
from steepest.cli.terminal import UsageError, console
from steepest.optimizer import RuleOptimizer
from steepest.spelling import suggest

TITLES = {
    "Formula": "Formula",
    "Neighbours": "Related methods",
    "From AdamW": "Learning rate, coming from AdamW",
    "State": "State",
    "When not to use": "When not to use it",
    "Args": "Arguments",
    "Source": "Source",
}


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


def list_() -> None:
    """List the optimizers of the library."""
    screen = console()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, cls in methods().items():
        table.add_row(Text(name, style="bold"), Text(plain(summary(cls))))
    screen.print(table)
    screen.print("\n`steepest show NAME` explains one.", highlight=False, markup=False)


def show(
    name: Annotated[str, typer.Argument(help="An optimizer of the library.")],
    plot: Annotated[
        Path | None,
        typer.Option(help="Also draw it into this file (.png, .svg or .pdf): its path, spectra and sizes."),
    ] = None,
) -> None:
    """Explain an optimizer: formula, four choices, learning rate, cost, source, when not to use it."""
    cls = find(name)
    screen = console()
    if plot is not None:
        _draw(cls, plot)
    _print(screen, f"{cls.__name__}: {plain(summary(cls))}", "bold")
    _print(screen, f"steepest.{cls.__name__}{_signature(cls)}")
    told = sections(cls)
    for key, title in TITLES.items():
        if key in told:
            _section(screen, title, plain(told[key]))
        if key == "Formula":
            _section(screen, "Four choices", "\n".join(f"{k:15}{v}" for k, v in choices(cls).items()))


def _draw(cls: type[RuleOptimizer], plot: Path) -> None:
    from steepest.gallery import draw_portrait

    try:
        draw_portrait(cls, plot)
    except ValueError as error:
        raise UsageError(f"--plot: {error}") from None
    except OSError as error:
        raise UsageError(f"--plot: cannot write {plot}: {error.strerror or error}") from None
    print(f"Picture: {plot}\n")


def _section(screen: Console, title: str, body: str) -> None:
    _print(screen, f"\n{title}", "bold")
    for line in body.splitlines():
        _print(screen, f"  {line}")


def _print(screen: Console, text: str, style: str = "") -> None:
    screen.print(Text(text, style=style), soft_wrap=True)


def _signature(cls: type) -> str:
    signature = inspect.signature(cls)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
