"""K-FAC in front of any optimizer: the gradients of known layers are replaced by preconditioned ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from steepest.hypers import validate
from steepest.preconditioners.kfac.direction import layer_direction, layer_state, observes_next
from steepest.preconditioners.kfac.factors import ActivationKronecker, kl_factor, squared_length
from steepest.preconditioners.kfac.hooks import LayerWatch, require_one_process
from steepest.preconditioners.kfac.layers import Layer
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
    ) -> None:
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
            RuntimeError: a layer has a gradient, but its passes were never seen.
        """
        if self.kl_clip is not None and lr is None:
            raise ValueError("lr=None: kl_clip bounds the step, so that precondition(lr=...) needs its lr")
        validate(self.__dict__, KFAC_CHECKS)
        moved: list[tuple[Tensor, Tensor]] = []
        try:
            active = [a for a in self._watch.layers if any(p.grad is not None for p in a.parameters)]
            require_one_process()
            for layer in active:
                if layer.name not in self.state:
                    self._watch.require(layer)
            for layer in active:
                grads = [p.grad for p in layer.parameters]
                preconditioner = self._preconditioner(layer)
                state = self.state.setdefault(layer.name, {}) or layer_state(layer, preconditioner)
                self.state[layer.name] = state
                hypers = {**preconditioner.hypers(), "statistics": self._watch.means(layer)}
                directions = layer_direction(layer, grads, state, preconditioner, hypers)
                moved += [(g, u) for g, u in zip(grads, directions, strict=True) if g is not None]
            if self.kl_clip is not None:
                factor = kl_factor(squared_length((lr, u, g) for g, u in moved), self.kl_clip)
                moved = [(g, u * factor.to(u.dtype)) for g, u in moved]
            for grad, direction in moved:
                grad.copy_(direction)
        finally:
            self._watch.forget()
        self._plan()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of every layer by its name, for ``torch.save``."""
        return {"state": {name: dict(own) for name, own in self.state.items()}}

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
        self._plan()

    def remove_hooks(self) -> None:
        """Take every hook off the model; :meth:`precondition` cannot be used any more."""
        self._watch.remove()

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
        value, expected = torch.as_tensor(value), template[name]
        if value.shape != expected.shape:
            raise ValueError(
                f"the saved {name!r} of layer {layer.name!r} has shape {tuple(value.shape)}, "
                f"expected {tuple(expected.shape)}"
            )
        device = torch.device("cpu") if name == "step" else layer.weight.device
        own[name] = value.to(device=device, dtype=expected.dtype, copy=True)
    return own
