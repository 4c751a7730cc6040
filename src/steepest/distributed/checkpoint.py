"""What a state dict holds of distributed parameters, and how state gets to its places after loading.

In a state dict every tensor of a parameter on a mesh is a DTensor, also what owners keep whole, so that
``torch.distributed.checkpoint`` saves each rank's share and loads it on any number of ranks. Making one is
then a collective. Replicas of plain parameters keep no such promise: their state dicts are local, as everyone
expects who saves on one rank, and what owners keep is gathered before, by :func:`gather_state`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from steepest.distributed import owned_state
from steepest.distributed.owned_state import Kept
from steepest.distributed.places import Place, owned_by, places_of
from steepest.distributed.settings import settings_of
from steepest.groups import describe
from steepest.stepping import BESIDE


@runtime_checkable
class KeepsLayers(Protocol):
    """An optimizer whose owners keep something of layers, beside what its rules keep of parameters."""

    def kept_layers(self) -> list[Kept]:
        """Return what they keep, under the layers' weights."""
        ...


@contextmanager
def shown(optimizer: Any) -> Iterator[None]:
    """Let ``optimizer.state`` be what a state dict holds, inside the block.

    Raises:
        RuntimeError: for replicas whose owners' state was not gathered since the last step, and for factors
            of blocks, which belong to one rank of one mesh.
    """
    state, places = optimizer.state, _places(optimizer)
    _refuse_blocks(optimizer, places)
    kept = _kept(optimizer, places)
    _require_here(kept, state, "state_dict()")
    whole = owned_state.shown([one for one in kept if one.layout.mesh is not None], state)
    optimizer.state = {param: {**own, **whole.get(param, {})} for param, own in state.items()}
    try:
        yield
    finally:
        optimizer.state = state


@torch.no_grad()
def gather_state(optimizer: Any) -> None:
    """Give every replica the whole state, so that ``optimizer.state_dict()`` can be called on any rank.

    For optimizers after :func:`split_work` whose method keeps factors or bases (Shampoo, SOAP, KFAC and
    others), which otherwise are on one rank each. Until the next step every rank then holds all of them. All
    ranks must call this; it does nothing for other optimizers.

    Example:
        >>> import torch, steepest, steepest.distributed
        >>> optimizer = steepest.SOAP([torch.nn.Parameter(torch.ones(4, 4))], lr=1e-3)
        >>> steepest.distributed.gather_state(optimizer)
        >>> state = optimizer.state_dict()
    """
    kept = [
        one
        for one in _kept(optimizer, _places(optimizer))
        if one.layout.mesh is None and one.param in optimizer.state
    ]
    for param, own in owned_state.shown(kept, optimizer.state).items():
        optimizer.state[param].update(own)


def require_whole(optimizer: Any, purpose: str) -> None:
    """Raise unless this rank has the whole state of replicas, for ``purpose``."""
    _require_here(_kept(optimizer, _places(optimizer)), optimizer.state, purpose)


def _require_here(kept: Iterable[Kept], state: Mapping[Tensor, Any], purpose: str) -> None:
    for one in kept:
        away = not one.template().keys() <= state.get(one.param, {}).keys()
        if away and one.layout.mesh is None and one.param in state:
            raise RuntimeError(
                f"the state of {describe(one.group, one.index)} is on rank {one.owner}, its owner: call "
                f"steepest.distributed.gather_state(optimizer) on every rank before {purpose}"
            )


def settle(optimizer: Any) -> None:
    """Bring state just loaded to its places: shards to their ranks, what owners keep to the owners.

    Plain tensors are taken to be whole and equal on all ranks.
    """
    places = _places(optimizer)
    owned_state.place(_kept(optimizer, places), optimizer.state)
    for param, place in places.items():
        for name, value in optimizer.state.get(param, {}).items():
            if not place.keeps_with_owner or name in BESIDE:
                optimizer.state[param][name] = value if name == "step" else _settled(value, param, place)


def _settled(value: Tensor, param: Tensor, place: Place) -> Tensor:
    """Return a state tensor placed as the parameter is, or as its matrices are."""
    layout = place.layout
    if not isinstance(param, DTensor) or (layout.cuts_matrices and value.shape != param.shape):
        return value
    layout = layout.beside(value.shape)
    if isinstance(value, DTensor):
        if value.device_mesh == layout.mesh and tuple(value.placements) == layout.placements:
            return value
        value = value.full_tensor()
    return layout.wrap(layout.part(value).clone(memory_format=torch.contiguous_format))


def _refuse_blocks(optimizer: Any, places: dict[Tensor, Place]) -> None:
    for group in optimizer.param_groups:
        for i, param in enumerate(group["params"]):
            if param not in places or places[param].way != "block":
                continue
            for name, value in optimizer.state.get(param, {}).items():
                if name != "step" and not isinstance(value, DTensor):
                    raise RuntimeError(
                        f"{name!r} of {describe(group, i)} is of this rank's block (blocks=True), and ranks "
                        "would overwrite each other's in a checkpoint: only methods whose state has the "
                        "parameter's shape can be saved with blocks"
                    )


def _places(optimizer: Any) -> dict[Tensor, Place]:
    rules = optimizer._rules()
    return places_of(optimizer.param_groups, rules, settings_of(optimizer))


def _kept(optimizer: Any, places: dict[Tensor, Place]) -> list[Kept]:
    kept = owned_state.kept(optimizer.param_groups, owned_by(places))
    return [*kept, *optimizer.kept_layers()] if isinstance(optimizer, KeepsLayers) else kept
