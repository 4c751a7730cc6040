"""The optimizer contract, on layers built around the parameters that the checks hand over."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from steepest import KFAC
from steepest.checks import parametrize_checks


class KFACOnLayers(KFAC):
    """K-FAC whose layers are made of its parameters; every step sees one fixed batch before it moves.

    The gradients of the checks are not of that batch: a damping of 1 keeps huge ones from growing.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        *,
        momentum: float | Tensor = 0.9,
        weight_decay: float = 0.0,
        damping: float = 1.0,
        stat_decay: float = 0.95,
        precondition_frequency: int = 2,
        aux: Mapping[str, Any] | None = None,
        maximize: bool = False,
        fused: bool | None = None,
        nonfinite: str | None = None,
    ) -> None:
        if not isinstance(params, Tensor):
            params = list(params)
        super().__init__(
            nn.ModuleList(layer for p in _tensors(params) if (layer := _layer(p))),
            lr,
            params=params,
            momentum=momentum,
            weight_decay=weight_decay,
            damping=damping,
            stat_decay=stat_decay,
            precondition_frequency=precondition_frequency,
            kl_clip=None,  # one length for the whole network: groups would not be independent
            aux=aux,
            maximize=maximize,
            fused=fused,
            nonfinite=nonfinite,
        )

    def add_param_group(self, param_group):
        if isinstance(param_group, dict) and isinstance(params := param_group.get("params"), Iterator):
            param_group = {**param_group, "params": list(params)}
        model: Any = self._watch.model
        known = {id(layer.weight) for layer in model}
        new = [p for p in _tensors([param_group]) if id(p) not in known]
        model.extend(layer for p in new if (layer := _layer(p)))
        super().add_param_group(param_group)

    def _move_layers(self, members, placed):
        weights = (p for g in self.param_groups if g["rule"] == "matrix" for p in g["params"])
        for layer, weight in zip(self._watch.layers, weights, strict=True):
            module = layer.modules[0]
            module.weight = weight  # what a wrapper that replaces parameters does
            weight = weight.detach().requires_grad_()
            sides = (8, weight[0].numel()) if weight.ndim == 2 else (8, weight.shape[1], 4, 4)
            x = torch.linspace(-1, 1, math.prod(sides)).sin().reshape(sides).to(weight)
            with torch.enable_grad():
                y = module(x)
                torch.autograd.grad(y, module.weight, torch.full_like(y, 0.1).cumsum(1))
        super()._move_layers(members, placed)


def _layer(param) -> Any:
    if not isinstance(param, nn.Parameter) or not param.numel():
        return None
    layer: Any = None
    if param.ndim == 2:
        layer = nn.Linear(1, 1, bias=False)
    if param.ndim == 4:
        layer = nn.Conv2d(1, 1, (param.shape[2], param.shape[3]), bias=False)
    if layer is not None:
        layer.weight = param
    return layer


def _tensors(params) -> list[Tensor]:
    found: list[Any] = []
    for entry in [params] if isinstance(params, Tensor) else params:
        if isinstance(entry, dict):
            found += _tensors(entry["params"]) if "params" in entry else []
        else:
            found.append(entry[1] if isinstance(entry, tuple) else entry)
    return found


@parametrize_checks(KFACOnLayers, lr=0.01)
def test_contract(check):
    check()
