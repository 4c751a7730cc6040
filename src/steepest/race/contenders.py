"""Who races: names, fixed arguments, where the learning rate search starts, how an optimizer is built."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

import steepest
from steepest._resolve import TargetError, load_target, public_optimizers
from steepest.catalogue import methods
from steepest.race.literals import parse_call, split_items, write_call
from steepest.race.records import RaceError
from steepest.race.task import Task, one_line
from steepest.spelling import suggest

# Name: class, fixed arguments, centre of the learning rate grid. AdamW and SGD are torch's own: they are
# the references. The centres are near each method's best rate on the embedded tasks; a wrong one costs
# runs, not rank, because a grid whose best point lies on its edge is extended.
DEFAULTS: dict[str, tuple[str, dict[str, Any], float]] = {
    "AdamW": ("torch.optim:AdamW", {}, 1e-2),
    "Muon": ("steepest:Muon", {}, 3.16e-2),
    "ANDI": ("steepest:ANDI", {}, 3.16e-2),
    "MuAdam": ("steepest:MuAdam", {}, 1e-3),
    "MuAdamSANIA": ("steepest:MuAdamSANIA", {}, 1e-4),
    "SGD": ("torch.optim:SGD", {"momentum": 0.9}, 1e-1),
}
# What others of the library need to race by name alone: an argument without a default, a start for their
# search where the class has no default rate.
REQUIRED: dict[str, tuple[dict[str, Any], float]] = {
    "AdamSANIA": ({}, 1e-4),
    "ClippedScion": ({"rho": 1.0}, 1e-2),
    "KFAC": ({}, 1e-2),
    "NormalizedSGD": ({}, 3.16e-2),
    "Scion": ({}, 1e-2),
}
REFERENCE = "AdamW"
FALLBACK_LR = 1e-2


@dataclass(frozen=True)
class Contender:
    """An optimizer class with the arguments that stay fixed while its learning rate is searched.

    ``target`` is ``module:Class``; ``name`` is what tables show; ``start_lr`` is the centre of the grid.
    """

    name: str
    target: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    start_lr: float = FALLBACK_LR

    @property
    def text(self) -> str:
        """The contender as text that `parse_contender` reads back, in any process."""
        return write_call(self.target, self.kwargs)

    def load(self) -> type[torch.optim.Optimizer]:
        """Import the class.

        Raises:
            RaceError: it cannot be imported or is not a torch optimizer.
        """
        try:
            return load_target(self.target)
        except TargetError as error:
            raise RaceError(one_line(f"cannot load optimizer {self.target!r}: {error}")) from None

    def is_hybrid(self) -> bool:
        """Say whether the class takes matrices itself and gives the rest to an auxiliary AdamW (`aux`)."""
        return "aux" in inspect.signature(self.load()).parameters

    def takes_model(self) -> bool:
        """Say whether the class is built from the model (KFAC, which watches its layers)."""
        return next(iter(inspect.signature(self.load()).parameters)) == "model"

    def build(self, model: nn.Module, task: Task, lr: float, aux_lr: float | None) -> torch.optim.Optimizer:
        """Construct the optimizer for a model; a hybrid gets the task's embeddings and heads as auxiliary."""
        trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        arguments = {"lr": lr, **self.kwargs}
        groups: Any = [p for _, p in trainable]
        if self.takes_model():
            auxiliary = [name for name, p in trainable if p.ndim > 1 and task.is_auxiliary(name)]
            arguments["skip"] = [name.rpartition(".")[0] for name in auxiliary]
            arguments["aux"] = {"lr": aux_lr, **(self.kwargs.get("aux") or {})}
            groups = model
        elif self.is_hybrid():
            hidden = [p for name, p in trainable if not task.is_auxiliary(name)]
            rest = [p for name, p in trainable if task.is_auxiliary(name)]
            groups = [{"params": hidden}, {"params": rest, "rule": "aux"}]
            groups = [group for group in groups if group["params"]]
            arguments["aux"] = {"lr": aux_lr, **(self.kwargs.get("aux") or {})}
        return self.load()(groups, **arguments)


def parse_contender(text: str) -> Contender:
    """Read ``Name``, ``module:Class``, or either with literal keyword arguments in parentheses.

    Raises:
        RaceError: the text cannot be read, or there is no such optimizer or argument.
    """
    text = text.strip()
    head, kwargs = parse_call(text, "optimizer")
    arguments = text[text.index("(") :] if "(" in text else ""
    if ":" in head:
        return _checked(_with_default_lr(Contender(text.partition(":")[2], head, kwargs)))
    head = _known_name(head)
    if head in DEFAULTS:
        target, fixed, start = DEFAULTS[head]
        return _checked(Contender(head + arguments, target, {**fixed, **kwargs}, start))
    module = "steepest" if hasattr(steepest, head) else "torch.optim"
    if head in REQUIRED:
        fixed, start = REQUIRED[head]
        return _checked(Contender(head + arguments, f"{module}:{head}", {**fixed, **kwargs}, start))
    return _checked(_with_default_lr(Contender(head + arguments, f"{module}:{head}", kwargs)))


def _known_name(name: str) -> str:
    known = {known.casefold(): known for known in (*public_optimizers(), *DEFAULTS)}
    if name.casefold() not in known:
        choices = f"; choose from {', '.join(DEFAULTS)}, or give module:Class"
        raise RaceError(f"unknown optimizer {name!r}{suggest(name, list(known.values())) or choices}")
    return known[name.casefold()]


def _with_default_lr(contender: Contender) -> Contender:
    """Start the search at the class's own default learning rate, if it has one."""
    default = getattr(inspect.signature(contender.load()).parameters.get("lr"), "default", None)
    if isinstance(default, int | float) and default > 0:
        return replace(contender, start_lr=float(default))
    return contender


def parse_contenders(text: str) -> list[Contender]:
    """Read a comma-separated list; ``default`` stands for the six of the default race, ``all`` for those and
    every other method of the library.

    The reference AdamW is always the first: hybrids take their auxiliary learning rate from it, and every
    verdict is against it. Of two contenders with one name, the later is shown with its module.
    """
    contenders = [parse_contender(REFERENCE)]
    for item in split_items(text):
        for name in _groups().get(item, (item,)):
            contender = parse_contender(name)
            if any(c.text == contender.text for c in contenders):
                continue
            if any(c.name == contender.name for c in contenders):
                contender = replace(contender, name=contender.text)
            contenders.append(contender)
    return contenders


def _groups() -> dict[str, tuple[str, ...]]:
    others = [name for name in methods() if name not in (*DEFAULTS, "Steepest")]
    return {"default": tuple(DEFAULTS), "all": (*DEFAULTS, *others)}


def _checked(contender: Contender) -> Contender:
    """Refuse arguments that the class does not take, before anything runs."""
    parameters = inspect.signature(contender.load()).parameters
    if "lr" in contender.kwargs:
        raise RaceError(f"{contender.name}: lr is searched; give its values with --lr-grid")
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return contender
    if "lr" not in parameters:
        raise RaceError(f"{contender.name}: its constructor takes no lr, which a race searches")
    for name in contender.kwargs:
        if name not in parameters:
            hint = suggest(name, list(parameters)) or f"; it takes {', '.join(list(parameters)[1:])}"
            raise RaceError(f"{contender.name}: unknown argument {name!r}{hint}")
    return contender
