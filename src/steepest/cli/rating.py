"""`steepest suggest-lr` and `steepest lr-range-test`."""

from __future__ import annotations

import importlib
import json as json_module
import os
import re
import sys
from dataclasses import asdict
from typing import Annotated, Any

import torch
import typer
from torch import nn
from torch.nn import Parameter

from steepest._resolve import TargetError
from steepest.cli.terminal import UsageError
from steepest.race.builtin import BUILTIN
from steepest.race.contenders import Contender, parse_contender
from steepest.race.records import RaceError
from steepest.race.task import one_line
from steepest.race.task_text import load_task
from steepest.rates import lr_range_test, suggest_lr

Optimizer = Annotated[
    str,
    typer.Argument(
        metavar="OPTIMIZER",
        help="A name or module:Class, with arguments if wanted, as in 'Muon(steps=6)'.",
    ),
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print all numbers as one JSON object.")]


def suggest(
    optimizer: Optimizer,
    adamw_lr: Annotated[float, typer.Option(help="The lr at which AdamW trains the model well.")],
    model: Annotated[
        str | None, typer.Option(help="module:object, a torch.nn.Module or a function that returns one.")
    ] = None,
    shapes: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated shapes of matrices, as 768x768,3072x768, instead of a model. Default: the "
            "matrices of a transformer of width 768."
        ),
    ] = None,
    json: AsJSON = False,
) -> None:
    """Carry AdamW's lr over to another optimizer: the lr at which its updates are as large."""
    if model is not None and shapes is not None:
        raise UsageError("give --model or --shapes, not both")
    contender = _contender(optimizer)
    what: Any = None
    if shapes is not None:
        what = [Parameter(torch.zeros(shape)) for shape in _shapes(shapes)]
    elif model is not None:
        what = _model(model)
    try:
        found = suggest_lr(contender.load(), adamw_lr, what, **contender.kwargs)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None
    print(json_module.dumps(asdict(found)) if json else found)


def range_test(
    task: Annotated[
        str, typer.Argument(metavar="TASK", help=f"{', '.join(BUILTIN)}, or module:object of a race's task.")
    ],
    optimizer: Optimizer,
    lr_min: Annotated[float, typer.Option(help="First lr.")] = 1e-6,
    lr_max: Annotated[float, typer.Option(help="Last lr.")] = 10.0,
    steps: Annotated[int, typer.Option(min=10, help="Steps of the sweep.")] = 100,
    aux_lr: Annotated[float, typer.Option(help="The lr of a hybrid's auxiliary AdamW, kept.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of weights and batches.")] = 0,
    json: AsJSON = False,
) -> None:
    """Train a task for a few steps while lr grows, and read an lr off the curve of the loss."""
    contender, job = _contender(optimizer), load_task(task)
    data = job.data()
    torch.manual_seed(seed)
    model = job.model(data)
    try:
        built = contender.build(model, job, lr_min, aux_lr)
    except (TypeError, ValueError) as error:
        raise UsageError(one_line(error)) from None
    batches = torch.Generator().manual_seed(seed)

    def backward() -> torch.Tensor:
        built.zero_grad()
        loss = job.loss(model, job.batch(data, batches, job.batch_size))
        loss.backward()
        return loss

    try:
        found = lr_range_test(built, backward, model, lr_min=lr_min, lr_max=lr_max, steps=steps)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None
    print(json_module.dumps(asdict(found)) if json else found)


def _contender(text: str) -> Contender:
    try:
        return parse_contender(text)
    except RaceError as error:
        raise UsageError(str(error)) from None


def _shapes(text: str) -> list[tuple[int, ...]]:
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch(r"[1-9]\d*(x[1-9]\d*)+", word) for word in words):
        raise UsageError(f"--shapes must be like 768x768,3072x768, got {text!r}")
    return [tuple(map(int, word.split("x"))) for word in words]


def _model(name: str) -> nn.Module:
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise UsageError(f"--model must be module:object, as in 'my_package.net:build', got {name!r}")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
        built = found if isinstance(found, nn.Module) or not callable(found) else found()
    except Exception as error:
        raise TargetError(one_line(f"cannot load {name!r}: {type(error).__name__}: {error}")) from None
    if not isinstance(built, nn.Module):
        raise UsageError(f"{name!r} gives a {type(built).__name__}, not a torch.nn.Module")
    return built
