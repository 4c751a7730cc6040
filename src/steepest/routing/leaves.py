"""The trainable parameters of a model, each once, with all its names and the modules that hold it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn
from torch.nn.parameter import UninitializedParameter

WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Parts that ``torch.compile``, FSDP and activation checkpointing put into names."""


@dataclass(frozen=True, eq=False)
class Leaf:
    """One trainable parameter.

    ``names`` are all its names, the first one first; ``holders`` the (path, module) pairs that hold it
    directly, in that order; ``around`` all modules that hold it at any depth, by path.
    """

    names: tuple[str, ...]
    param: nn.Parameter
    holders: tuple[tuple[str, nn.Module], ...]
    around: dict[str, nn.Module]

    @property
    def name(self) -> str:
        """The name ``named_parameters`` gives it."""
        return self.names[0]

    @property
    def matchable(self) -> tuple[str, ...]:
        """What a pattern is compared with: names and the paths around them, without wrappers' parts too."""
        raw = (*self.names, *(path for path in self.around if path))
        return tuple(dict.fromkeys((*raw, *map(plain_name, raw))))


def plain_name(name: str) -> str:
    """Return a name without what wrappers put into it."""
    return WRAPPERS.sub("", name)


def leaves_of(model: nn.Module) -> list[Leaf]:
    """Return the trainable parameters in the order of ``named_parameters``, tied ones once.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: it has no trainable parameter, or one whose shape is not known yet.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, got {type(model).__name__}; parameters and groups can be "
            "given to the optimizer as they are"
        )
    modules = dict(model.named_modules(remove_duplicate=False))
    names: dict[nn.Parameter, list[str]] = {}
    for name, param in model.named_parameters(remove_duplicate=False):
        if param.requires_grad:
            if isinstance(param, UninitializedParameter):
                raise ValueError(f"parameter {name!r} has no shape yet: run a batch through the model first")
            names.setdefault(param, []).append(name)
    if not names:
        raise ValueError(f"{type(model).__name__} has no parameter that requires a gradient")
    return [_leaf(param, own, modules) for param, own in names.items()]


def _leaf(param: nn.Parameter, names: list[str], modules: dict[str, nn.Module]) -> Leaf:
    holders: list[tuple[str, nn.Module]] = []
    around: dict[str, nn.Module] = {}
    for name in names:
        parts = name.split(".")
        for depth in range(len(parts)):
            path = ".".join(parts[:depth])
            if path in modules:
                around[path] = modules[path]
        holders.append((".".join(parts[:-1]), modules[".".join(parts[:-1])]))
    return Leaf(tuple(names), param, tuple(holders), around)
