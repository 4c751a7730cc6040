"""The layers of a model that K-FAC preconditions, and which of its parameters form one matrix [W b]."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from steepest.preconditioners.kfac.kinds import Kind, kind_of
from steepest.preconditioners.kfac.statistics import Batch
from steepest.spelling import suggest


class Layer:
    """One matrix [W b] and the modules that use it: several if they share both weight and bias.

    Parameters are read from the modules whenever they are needed, so that they may be replaced. Not so
    DTensors: ``fully_shard`` has other tensors stand in their place during the passes.
    """

    def __init__(self, name: str, modules: list[Any], kind: Kind, joined: bool) -> None:
        self.name = name
        self.modules = modules
        self.kind = kind
        self.joined = joined
        """Whether the bias is a column of the matrix."""
        self.observing = True
        self.pending = Batch()
        self._sharded: list[Tensor] | None = None
        if any(map(is_sharded, self.parameters)):
            self._sharded = self.parameters

    @property
    def weight(self) -> Tensor:
        """The weight as it is now."""
        return self.parameters[0]

    @property
    def parameters(self) -> list[Tensor]:
        """Weight, and bias if it is part of the matrix."""
        if self._sharded is not None:
            return self._sharded
        first = self.modules[0]
        return [first.weight, first.bias] if self.joined else [first.weight]

    def join(self, parts: list[Tensor]) -> Tensor:
        """Return tensors shaped as :attr:`parameters` as one matrix (1, m, n)."""
        matrix = parts[0].flatten(1)
        return (torch.cat([matrix, parts[1][:, None]], dim=1) if self.joined else matrix)[None]

    def split(self, matrix: Tensor) -> list[Tensor]:
        """Undo :meth:`join`."""
        if not self.joined:
            return [matrix[0].reshape(self.weight.shape)]
        return [matrix[0, :, :-1].reshape(self.weight.shape), matrix[0, :, -1]]

    def matrix_shape(self) -> tuple[int, int, int]:
        """Return the shape of the joined matrix, (1, m, n)."""
        return (1, self.weight.shape[0], self.weight.shape[1:].numel() + self.joined)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what was gathered for the coming step, as copies leave out gradients."""
        return {**self.__dict__, "pending": Batch()}


def is_sharded(tensor: Any) -> bool:
    """Return whether a tensor is a DTensor, without importing what defines them."""
    tensors = sys.modules.get("torch.distributed.tensor")
    return tensors is not None and isinstance(tensor, tensors.DTensor)


def find_layers(
    model: nn.Module, trained: Collection[int], skip: Iterable[str] = (), known: Iterable[Layer] = ()
) -> list[Layer]:
    """Return the layers whose weight is among ``trained`` (ids of parameters), except the ``known`` ones.

    Raises:
        ValueError: a weight is shared between modules that are not one layer used several times, or an entry
            of ``skip`` names no module.
    """
    skipped = _skipped(model, skip)
    users: dict[int, list[tuple[str, nn.Module]]] = {}
    for name, module in model.named_modules():
        for param in module._parameters.values():
            if param is not None:
                users.setdefault(id(param), []).append((name, module))
    taken = {id(layer.weight) for layer in known}
    found: list[Layer] = []
    for key, using in users.items():
        name, module = using[0]
        modules = [module for _, module in using]
        kinds = [kind_of(m) if m._parameters.get("weight") is _parameter(m, key) else None for m in modules]
        if key not in trained or key in taken or not any(kinds) or not skipped.isdisjoint(modules):
            continue
        bias = module._parameters.get("bias")
        alone = bias is None or [m for _, m in users[id(bias)]] == modules
        same = all(kind is kinds[0] for kind in kinds)
        same &= all(m._parameters.get("bias") is bias for m in modules)
        if kinds[0] is None or not same or not alone:
            names = [n for n, _ in using]
            shown = ", ".join(f"{n!r} ({type(m).__name__})" for n, m in using)
            raise ValueError(
                f"the weight or bias of {name!r} is shared ({shown}) by modules that are not one layer used "
                f"several times, so that it has no single input covariance; skip={names!r} leaves it to aux"
            )
        found.append(Layer(name, modules, kinds[0], bias is not None and id(bias) in trained))
    return found


def _parameter(module: nn.Module, key: int) -> Tensor | None:
    return next((p for p in module._parameters.values() if id(p) == key), None)


def _skipped(model: nn.Module, skip: Iterable[str]) -> set[nn.Module]:
    """Return the modules below the skipped names, and those that attention uses without calling them."""
    if isinstance(skip, str):
        raise TypeError(f"skip must be a collection of module names, got the string {skip!r}")
    named = dict(model.named_modules(remove_duplicate=False))
    out = {m for top in model.modules() if isinstance(top, nn.MultiheadAttention) for m in top.modules()}
    for entry in skip:
        if entry not in named:
            hint = suggest(str(entry), named) or f"; it has {', '.join(filter(None, named)) or 'none'}"
            raise ValueError(f"skip names {entry!r}, which is no module of the model{hint}")
        out |= set(named[entry].modules())
    return out
