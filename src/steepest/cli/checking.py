"""`steepest check` and `steepest invariance`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from steepest.checks import main_check, main_invariance


def check(
    target: Annotated[str, typer.Argument(metavar="module:Class", help="An optimizer class, or its name.")],
    strict: Annotated[bool, typer.Option("--strict", help="Count the strict checks too.")] = False,
    kwargs: Annotated[str | None, typer.Option(help="Constructor arguments as a JSON object.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Names or groups of checks to run.")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="Names or groups of checks to leave out.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
    device: Annotated[str, typer.Option(help="Where the parameters live.")] = "cpu",
) -> None:
    """Check an optimizer class against PyTorch's contract, clause by clause."""
    raise typer.Exit(
        main_check(
            target,
            strict=strict,
            kwargs=kwargs,
            only=only,
            skip=skip,
            json=json,
            device=device,
            err=lambda line: print(f"steepest: {line.removeprefix('error: ')}", file=sys.stderr),
        )
    )


def invariance(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAMES]...", help="Optimizers, or module:Class. Default: the library's."),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, help="Steps of each trajectory.")] = 30,
    model: Annotated[
        list[str] | None, typer.Option(help="linear, mlp or pixels. Default: the first two.")
    ] = None,
    strength: Annotated[float, typer.Option(help="How far the new coordinates are from the old.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of weights, batches and coordinates.")] = 0,
    kwargs: Annotated[str | None, typer.Option(help="Constructor arguments as a JSON object.")] = None,
    out: Annotated[list[Path] | None, typer.Option(help="Picture (.png) or table (.md) to write.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print all results as JSON.")] = False,
) -> None:
    """Measure to which changes of coordinates optimizers are invariant, beside what theory predicts."""
    raise typer.Exit(
        main_invariance(
            names, steps=steps, models=model, strength=strength, seed=seed, kwargs=kwargs, out=out, json=json
        )
    )
