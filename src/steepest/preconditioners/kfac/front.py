"""K-FAC in front of any optimizer: the gradients of known layers are replaced by preconditioned ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from steepest.hypers import validate
from steepest.linalg.precision import own_dtypes
from steepest.numeric import as_tensor
from steepest.preconditioners.kfac.direction import LayerStep, layer_state, observes_next
from steepest.preconditioners.kfac.factors import ActivationKronecker
from steepest.preconditioners.kfac.hooks import LayerWatch
from steepest.preconditioners.kfac.layers import Layer, is_sharded
from steepest.preconditioners.kfac.network import clip_factor, local_gradient, precondition
from steepest.preconditioners.kfac.options import KFAC_CHECKS


class KFACPreconditioner:
    """K-FAC as a filter of gradients, for use with an optimizer of your own.

    Call :meth:`precondition` between ``backward`` and that optimizer's ``step``: it **writes p.grad** of
    every weight and bias of a known layer, and leaves all other gradients alone. With ``torch.optim.SGD``
    behind it this is :class:`steepest.KFAC`. An optimizer that divides by gradient sizes (Adam) undoes most
    of it.

    Args:
        model: the model; its ``Linear``, ``Conv2d`` and ``Embedding`` layers with a trainable weight are
            hooked.
        damping, factored_damping, stat_decay, kl_clip, precondition_frequency, statistics_frequency,
            statistics, loss_average, skip: as in :class:`steepest.KFAC`; the numbers are plain attributes
            that may be changed between steps.
        replicas: the process group over which plain weights are replicated and their gradients averaged, as
            by DistributedDataParallel, for example ``torch.distributed.group.WORLD``: statistics are of all
            its examples, and each layer is preconditioned by one of its ranks for all. Default None: this
            process alone. Sharded weights (DTensors) need no group; their ranks are those of their mesh.

    Raises:
        ValueError, TypeError: a bad argument, an entry of ``skip`` that names no module, or weights shared
            between different layers.

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        >>> with steepest.KFACPreconditioner(model, kl_clip=1e-3) as kfac:
        ...     for _ in range(3):
        ...         optimizer.zero_grad()
        ...         model(torch.randn(16, 8)).square().mean().backward()
        ...         kfac.precondition(lr=0.05)
        ...         optimizer.step()
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        damping: float = 1e-2,
        factored_damping: bool = False,
        stat_decay: float = 0.95,
        kl_clip: float | None = None,
        precondition_frequency: int = 10,
        statistics_frequency: int = 1,
        statistics: str = "both",
        loss_average: str | None = "batch",
        skip: Iterable[str] = (),
        replicas: Any = None,
    ) -> None:
        self.replicas = replicas
        self.damping = damping
        self.factored_damping = factored_damping
        self.stat_decay = stat_decay
        self.kl_clip = kl_clip
        self.precondition_frequency = precondition_frequency
        self.statistics_frequency = statistics_frequency
        self.statistics = statistics
        validate(self.__dict__, KFAC_CHECKS)
        self._preconditioner(None)
        self._watch = LayerWatch(model, skip=skip, loss_average=loss_average)
        self._watch.add(self._watch.find({id(p) for p in model.parameters() if p.requires_grad}))
        self.state: dict[str, dict[str, Tensor]] = {}
        """State by name of layer, under the names of :class:`steepest.KFAC`."""
        for layer in self._watch.layers:
            if is_sharded(layer.weight):  # whose checkpoints must be complete before the first step
                self.state[layer.name] = {"step": torch.zeros((), device="cpu")}

    def _preconditioner(self, layer: Layer | None) -> ActivationKronecker:
        return ActivationKronecker(
            self.damping,
            self.stat_decay,
            self.factored_damping,
            self.precondition_frequency,
            self.statistics,  # pyright: ignore[reportArgumentType]
            layer is not None and layer.kind.diagonal_input,
        )

    @torch.no_grad()
    def precondition(self, lr: float | None = None) -> None:
        """Replace the gradients of all known layers by K-FAC directions, in place.

        Args:
            lr: the learning rate of the step to come; needed with ``kl_clip`` and only there.

        Raises:
            ValueError: ``kl_clip`` is set and ``lr`` is not given.
            RuntimeError: a layer has a gradient, but its passes were never seen, or has one on some ranks
                only; or there are several processes, and neither ``replicas`` nor sharded weights.
        """
        if self.kl_clip is not None and lr is None:
            raise ValueError("lr=None: kl_clip bounds the step, so that precondition(lr=...) needs its lr")
        validate(self.__dict__, KFAC_CHECKS)
        try:
            with own_dtypes():
                self._replace_gradients(lr)
        finally:
            self._watch.forget()
        self._plan()

    def _replace_gradients(self, lr: float | None) -> None:
        placed = self._placed()
        if placed:
            from steepest.distributed.kfac import require_same_gradients

            require_same_gradients(placed)
        steps = [
            self._step_of(layer)
            for layer in self._watch.layers
            if any(p.grad is not None for p in layer.parameters)
        ]
        found = precondition(steps, placed, self._watch)
        self.state.update((step.layer.name, step.state) for step in steps)
        factor = None if self.kl_clip is None else clip_factor(found, [lr] * len(found), self.kl_clip)
        for one in found:
            one.grad.copy_(
                one.direction if factor is None else one.direction * factor.to(one.direction.dtype)
            )

    def _step_of(self, layer: Layer) -> LayerStep:
        """Return a layer with this rank's parts of its gradients."""
        preconditioner = self._preconditioner(layer)
        grads = [
            None if p.grad is None else local_gradient(p, p.grad, f"a parameter of layer {layer.name!r}")
            for p in layer.parameters
        ]
        state = self.state.get(layer.name, {})
        return LayerStep(layer, grads, state, preconditioner, preconditioner.hypers())

    def _placed(self) -> Mapping[Layer, Any]:
        """Return the layers that several ranks hold, with their places."""
        if self.replicas is None and not any(is_sharded(layer.weight) for layer in self._watch.layers):
            return {}
        from steepest.distributed.kfac import placed

        return placed([self._watch.layers], self.replicas)

    def _kept(self) -> list[Any]:
        """Return the layers whose owner keeps their factors."""
        placed = self._placed()
        if not placed:
            return []
        from steepest.distributed.kfac_state import KeptLayer
        from steepest.rule import Rule

        return [
            KeptLayer(
                {}, i, layer.weight, Rule(), one.layouts[0], one.owner, layer, self._preconditioner(layer)
            )
            for i, (layer, one) in enumerate(placed.items())
            if "step" in self.state.get(layer.name, {})
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the state of every layer by its name, for ``torch.save``.

        On several ranks all must call it: factors of sharded weights become DTensors, as
        ``torch.distributed.checkpoint`` takes them; replicas get those of all owners.
        """
        state = {name: dict(own) for name, own in self.state.items()}
        if kept := self._kept():
            from steepest.distributed.owned_state import shown

            names = {layer.weight: layer.name for layer in self._watch.layers}
            by_weight = {weight: state.get(name, {}) for weight, name in names.items()}
            for weight, own in shown(kept, by_weight).items():
                state[names[weight]].update(own)
        return {"state": state}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what :meth:`state_dict` returned, bit for bit.

        Raises:
            ValueError: it names a layer that is not known here or holds a tensor of another shape; nothing is
                changed then.
        """
        layers = {layer.name: layer for layer in self._watch.layers}
        loaded = {}
        for name, saved in state_dict["state"].items():
            if name not in layers:
                raise ValueError(f"the saved state holds layer {name!r}, known are {', '.join(layers)}")
            loaded[name] = restored(layers[name], saved, self._preconditioner(layers[name]))
        self.state = loaded
        if kept := self._kept():
            from steepest.distributed.owned_state import place

            place(
                kept,
                {layer.weight: loaded[layer.name] for layer in self._watch.layers if layer.name in loaded},
            )
        self._plan()

    def remove_hooks(self) -> None:
        """Take every hook off the model; :meth:`precondition` cannot be used any more."""
        self._watch.remove()

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles carry: all but the process group."""
        return {**self.__dict__, "replicas": None}

    def __enter__(self) -> KFACPreconditioner:
        """Return itself; leaving the block removes the hooks."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the hooks."""
        self.remove_hooks()

    def _plan(self) -> None:
        for layer in self._watch.layers:
            layer.observing = observes_next(self.state.get(layer.name), self.statistics_frequency)


def restored(
    layer: Layer, saved: Mapping[str, Any], preconditioner: ActivationKronecker
) -> dict[str, Tensor]:
    """Return a copy of a layer's saved state on its device, or raise a ``ValueError`` if it does not fit."""
    template = layer_state(layer, preconditioner, torch.device("meta"))
    if set(saved) != set(template):
        raise ValueError(
            f"the saved state of layer {layer.name!r} holds {sorted(saved)}, this K-FAC keeps "
            f"{sorted(template)}: the checkpoint is of another optimizer or of other settings"
        )
    own = {}
    for name, value in saved.items():
        value, expected = as_tensor(value), template[name]
        if value.shape != expected.shape:
            raise ValueError(
                f"the saved {name!r} of layer {layer.name!r} has shape {tuple(value.shape)}, "
                f"expected {tuple(expected.shape)}"
            )
        device = torch.device("cpu") if name == "step" else layer.weight.device
        own[name] = value.to(device=device, dtype=expected.dtype, copy=True)
    return own
