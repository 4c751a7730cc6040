"""A model, its optimizer and torch's random numbers, put back exactly as they were."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from steepest.layerwise import LayerOptimizer


@contextmanager
def restored(optimizer: Optimizer, model: nn.Module | None) -> Iterator[None]:
    """Undo, at the end, whatever happens to parameters, gradients, buffers, state, groups and generators.

    Tensors keep their identity: old contents are copied back into them. What a K-FAC optimizer's layers have
    seen since its last step is set aside.
    """
    params = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    if model is not None:
        params.update({id(p): p for p in model.parameters()})
    buffers = [] if model is None else list(model.buffers())
    modes = [] if model is None else [(module, module.training) for module in model.modules()]
    kept = [(t, t.detach().clone()) for t in (*params.values(), *buffers)]
    gradients = [(p, p.grad, None if p.grad is None else p.grad.clone()) for p in params.values()]
    state = {p: {name: (v, _copied(v)) for name, v in own.items()} for p, own in optimizer.state.items()}
    groups = [
        {k: (v, _copied(v)) for k, v in group.items() if k not in ("params", "param_names")}
        for group in optimizer.param_groups
    ]
    layers = optimizer._watch.layers if isinstance(optimizer, LayerOptimizer) else ()
    seen = [(layer, layer.pending, layer.observing) for layer in layers]
    devices = sorted({p.device.index for p in params.values() if p.device.type == "cuda"})
    try:
        for layer in layers:
            layer.pending = type(layer.pending)()
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        with torch.no_grad():
            for tensor, old in kept:
                tensor.copy_(old)
            for p, grad, old in gradients:
                if grad is not None:
                    grad.copy_(old)
                p.grad = grad
            optimizer.state.clear()
            for p, own in state.items():
                optimizer.state[p] = _back(own)
            for group, own in zip(optimizer.param_groups, groups, strict=True):
                for key in group.keys() - own.keys() - {"params", "param_names"}:
                    del group[key]
                group.update(_back(own))
        for module, training in modes:
            module.training = training
        for layer, pending, observing in seen:
            layer.pending, layer.observing = pending, observing


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)


def _back(values: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Return the values themselves, tensors with their old contents."""
    result = {}
    for name, (value, old) in values.items():
        if isinstance(value, Tensor) and value.shape == old.shape:
            value.copy_(old)
            result[name] = value
        else:
            result[name] = old
    return result
