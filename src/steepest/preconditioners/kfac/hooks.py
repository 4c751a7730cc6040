"""Hooks that gather the statistics of layers, and leave nothing behind when they are removed.

The input's sum is taken in the forward pass and kept only if a gradient of that call's output arrives. So a
pass that is never differentiated, a pass under ``no_grad`` and a pass in ``eval`` mode change nothing.

Under tensor parallelism inputs and output gradients are DTensors: they are made whole on every rank of their
mesh, and so the hooks come before those that turn outputs into plain tensors.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from steepest.preconditioners.kfac.layers import Layer, find_layers, is_sharded
from steepest.preconditioners.kfac.statistics import second_moment

LOSS_AVERAGES = ("batch", "batch+sequence", None)


class Tap:
    """A module hook that does not keep its target alive, and whose copies do nothing.

    Copies and pickles of a model thus carry hooks that are empty.
    """

    def __init__(self, target: Callable[..., None] | None = None) -> None:
        self._target = None if target is None else weakref.WeakMethod(target)

    def __call__(self, *args: Any) -> None:
        """Pass the call on if the target still exists."""
        target = self._target and self._target()
        if target is not None:
            target(*args)

    def __deepcopy__(self, memo: Any) -> Tap:
        """Return an empty hook."""
        return Tap()

    def __reduce__(self) -> tuple[type[Tap], tuple[()]]:
        """Pickle as an empty hook."""
        return Tap, ()


class LayerWatch:
    """The watched layers of a model.

    A deep copy or pickle takes the model along and watches its copy; nothing is hooked twice. Deleting the
    watch removes its hooks, as does :meth:`remove`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        skip: Iterable[str] = (),
        loss_average: str | None = "batch",
        outputs: bool = True,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if loss_average not in LOSS_AVERAGES:
            raise ValueError(
                f"loss_average must be one of {', '.join(map(repr, LOSS_AVERAGES))}, got {loss_average!r}"
            )
        self.model = model
        self.layers: list[Layer] = []
        self.loss_average = loss_average
        self.outputs = outputs
        self._skip = skip if isinstance(skip, str) else tuple(skip)
        self._by_module: dict[nn.Module, Layer] = {}
        self._handles: list[RemovableHandle] = []
        self._depth = self._forward = 0
        self._remove = weakref.finalize(self, _remove_all, self._handles)

    def find(self, trained: Collection[int]) -> list[Layer]:
        """Return the layers, not yet watched, whose weight is among ``trained`` (ids of parameters)."""
        return find_layers(self.model, trained, self._skip, self.layers)

    def add(self, layers: Iterable[Layer]) -> None:
        """Watch layers that :meth:`find` has found."""
        layers = list(layers)
        self.layers += layers
        for layer in layers:
            self._by_module.update(dict.fromkeys(layer.modules, layer))
        if self._remove.alive:
            self._hook(layers, whole=not self._handles)

    def forget(self) -> None:
        """Drop what was gathered since the last step."""
        for layer in self.layers:
            layer.pending = type(layer.pending)()

    def means(self, layer: Layer) -> tuple[Tensor | None, Tensor] | None:
        """Return the covariances (A, B) gathered since the last step, or None."""
        return layer.pending.means(self.loss_average is not None)

    def require(self, layer: Layer) -> None:
        """Raise if a layer has a gradient although no call of it was seen."""
        if layer.pending.inputs is None:
            raise RuntimeError(
                f"layer {layer.name!r} has a gradient, but no forward and backward pass through it was seen: "
                "it was in eval mode, its hooks were removed, or its weight is used without calling it; "
                f"skip=[{layer.name!r}] leaves it out"
            )

    def remove(self) -> None:
        """Take every hook off the model, for good."""
        self._remove()

    def _hook(self, layers: Iterable[Layer], whole: bool) -> None:
        for layer in layers:
            for module in layer.modules:
                handle = module.register_forward_hook(Tap(self._called), with_kwargs=True, prepend=True)
                self._handles.append(handle)
        if whole:
            self._handles.append(self.model.register_forward_pre_hook(Tap(self._entered)))
            self._handles.append(self.model.register_forward_hook(Tap(self._left), always_call=True))

    def _entered(self, *_: Any) -> None:
        self._forward += self._depth == 0
        self._depth += 1

    def _left(self, *_: Any) -> None:
        self._depth = max(0, self._depth - 1)

    def _called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        layer = self._by_module.get(module)
        if layer is None or not (layer.observing and module.training and torch.is_grad_enabled()):
            return
        if not (isinstance(output, Tensor) and output.requires_grad):
            return
        if self._depth == 0:  # a layer called without its model: every call is a pass of its own
            self._forward += 1
        forward = self._forward
        x = _whole((args[0] if args else kwargs["input"]).detach())
        kind, outputs = layer.kind, self.outputs
        examples = kind.examples(module, x, self.loss_average == "batch+sequence")
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            inputs = kind.inputs(module, x, layer.joined)

        def arrived(grad: Tensor) -> None:
            total = None
            if outputs:
                with torch.no_grad(), torch.autocast(grad.device.type, enabled=False):
                    rows = kind.output_rows(module, _whole(grad.detach()))
                    if inputs.used is not None:
                        rows = rows * inputs.used[:, None]
                    total = second_moment(rows)
            layer.pending.add(inputs.total, inputs.rows, total, forward, examples)

        output.register_hook(arrived)

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies carry: all but the guard that belongs to this object."""
        state = {k: v for k, v in self.__dict__.items() if k not in ("_remove", "_by_module")}
        return {**state, "_depth": 0, "_watching": self._remove.alive}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Replace the empty hooks that came along with the copied model."""
        watching = state.pop("_watching")
        self.__dict__.update(state)
        _remove_all(self._handles)
        self._by_module = {module: layer for layer in self.layers for module in layer.modules}
        self._remove = weakref.finalize(self, _remove_all, self._handles)
        if watching:
            self._hook(self.layers, whole=True)
        else:
            self._remove.detach()


def _whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor; a collective for DTensors."""
    if not is_sharded(tensor):
        return tensor
    from steepest.distributed.collectives import made_whole

    return made_whole(tensor, "activations")


def require_one_process() -> None:
    """Raise if the default process group has several members."""
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    if there and (count := torch.distributed.get_world_size()) > 1:
        raise RuntimeError(
            f"the default group has {count} processes, and nothing says which of them hold copies of plain "
            "weights, so that covariances would differ between them: call steepest.distributed."
            "split_work(optimizer), or give KFACPreconditioner replicas=group; layers of sharded weights "
            "(DTensors) need neither"
        )


def _remove_all(handles: list[RemovableHandle]) -> None:
    while handles:
        handles.pop().remove()
