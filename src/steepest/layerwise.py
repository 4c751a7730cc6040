"""Optimizers whose preconditioner sees layers, by hooks, and not gradients alone.

A step preconditions every layer first, since one number of the whole network may bound its length, and then
averages and moves as any other rule does.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from steepest import stepping
from steepest.apply import apply_
from steepest.groups import SHARED_KEYS, Member, describe, entries_of, tensor_of
from steepest.hypers import reject_misspelt, resolve, validate
from steepest.optimizer import GROUP_KEYS, RuleOptimizer
from steepest.preconditioners import Identity
from steepest.preconditioners.kfac import ActivationKronecker
from steepest.preconditioners.kfac.direction import FACTOR_STATE, LayerStep, observes_next
from steepest.preconditioners.kfac.front import restored
from steepest.preconditioners.kfac.hooks import LayerWatch
from steepest.preconditioners.kfac.layers import Layer, is_sharded
from steepest.preconditioners.kfac.network import clip_factor, local_gradient, precondition
from steepest.rounding import compute_dtype, weight_of
from steepest.rule import Rule
from steepest.screening import passes
from steepest.views import as_stack, initial_state, scatter


class LayerOptimizer(RuleOptimizer):
    """Base of optimizers that watch the layers of a model; a subclass sets ``_watch`` before all else."""

    _watch: LayerWatch

    @abstractmethod
    def _preconditioner(self, layer: Layer, group: Mapping[str, Any]) -> ActivationKronecker:
        """Return how a layer is preconditioned under the settings of its group."""

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        """Return the part of the rule that acts on one parameter, once its layer is preconditioned."""
        rule = super()._rule(group)
        return rule if group.get("rule") == "aux" else replace(rule, preconditioner=Identity())

    def remove_hooks(self) -> None:
        """Take every hook off the model. Training can not go on, as layers are no longer seen."""
        self._watch.remove()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset all gradients, and drop the statistics that came with them."""
        super().zero_grad(set_to_none)
        self._watch.forget()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as its layers' half and its auxiliary half; new layers of the model are hooked."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, got {param_group!r}")
        if "params" not in param_group:
            raise ValueError(f"param_group must hold 'params', got {', '.join(map(repr, param_group))}")
        group = {**param_group, "params": self._named(entries_of(param_group["params"]))}
        reject_misspelt("param_group", group, (*self.defaults, *self._aux, *GROUP_KEYS))
        aux = group.get("rule") == "aux"
        validate(group, None if aux else self.checks)
        found = [] if aux else self._watch.find({id(p) for p in tensors_of(group)})
        layers = [] if aux else [*self._watch.layers, *found]
        mine = {id(p) for layer in layers for p in layer.parameters}
        others = [entry for entry in group["params"] if id(tensor_of(entry)) not in mine]
        own = [entry for entry in group["params"] if id(tensor_of(entry)) in mine]
        if own and group.get("batch_dims", 0):
            raise ValueError(f"batch_dims must be 0 for K-FAC layers, got {group['batch_dims']!r}")
        if own and group.get("split_sizes"):
            raise ValueError(f"split_sizes must be None for K-FAC layers, got {group['split_sizes']!r}")
        if others and group.get("rule") == "matrix":
            raise ValueError(
                f"rule='matrix' needs parameters of K-FAC layers, got one of shape "
                f"{tuple(tensor_of(others[0]).shape)} that is not; leave 'rule' out or give it rule='aux'"
            )
        count = len(self.param_groups)
        try:
            if own:
                # Past the base class, which would tell the halves apart by dimensions.
                super(RuleOptimizer, self).add_param_group({**group, "params": own, "rule": "matrix"})
                self._check_group(self.param_groups[-1])
                self._begin(self.param_groups[-1], layers)
            if others or not own:
                kept = {k: v for k, v in group.items() if aux or k in SHARED_KEYS or k not in self.defaults}
                super().add_param_group({**kept, "params": others, "rule": "aux"})
        except Exception:
            self._drop_groups(count)
            raise
        self._watch.add(found)

    def _begin(self, group: dict[str, Any], layers: Iterable[Layer]) -> None:
        """Create what checkpoints of DTensors need early, after checking how they are placed."""
        weights = {id(layer.weight): layer for layer in layers}
        for param in group["params"]:
            if is_sharded(param) and param.device.type != "meta":
                if layer := weights.get(id(param)):
                    from steepest.distributed.kfac import layer_layouts

                    layer_layouts(layer, None)
                    self.state[param]["step"] = torch.zeros((), device="cpu")
                self.state[param].update({**self._initial(param, group), **self.state[param]})

    def _initial(self, param: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """Return the state of a parameter without its layer's factors."""
        rule = self._rule(group)
        if not is_sharded(param):
            return initial_state(rule, param, group)
        from steepest.distributed.places import place_of
        from steepest.distributed.settings import settings_of
        from steepest.distributed.state import initial_state as sharded_state

        place = place_of(param, rule, 0, settings_of(self))
        assert place is not None  # a DTensor has one
        return sharded_state(place, param, group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; with ``closure``, evaluate it first under ``enable_grad`` and return its loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        try:
            self._move(loss)
        finally:
            self._watch.forget()
        self._plan()
        return loss

    def _move_members(self, loss: Any) -> None:
        members, rules = list(self._members()), self._rules()
        own = [member for member in members if member.group.get("rule") != "aux"]
        aux = [member for member in members if member.group.get("rule") == "aux"]
        if not self._distributed(p for group in self.param_groups for p in group["params"]):
            if passes(members):
                self._move_layers(own, {})
                stepping.take_step(aux, rules, self.state, loss)
            return
        from steepest.distributed.kfac import places_of_layers
        from steepest.distributed.places import places_of
        from steepest.distributed.settings import settings_of
        from steepest.distributed.step import move_members, screened

        settings, layers = settings_of(self), self._placed()
        places = {**places_of(self.param_groups, rules, settings), **places_of_layers(layers)}
        if screened(self.param_groups, places, members):
            self._move_layers(own, layers)
            move_members(self.param_groups, aux, places, rules, self.state, loss, settings)

    def _placed(self) -> dict[Layer, Any]:
        """Return the layers that several ranks hold, with their places, in the order of groups."""
        from steepest.distributed.kfac import placed
        from steepest.distributed.settings import settings_of

        layers = {id(layer.weight): layer for layer in self._watch.layers}
        groups = [[layers[id(p)] for p in group["params"] if id(p) in layers] for group in self.param_groups]
        return placed(groups, settings_of(self).replicas)

    def _move_layers(self, members: list[Member], placed: Mapping[Layer, Any]) -> None:
        """Move the parameters of all layers: directions first, their common factor, then momentum."""
        groups = self._group_of()
        steps = self._layer_steps(members, groups)
        traffic = None if self._sharding is None else self._sharding.traffic
        found = precondition(steps, placed, self._watch, traffic)
        self.state.update((step.layer.weight, step.state) for step in steps)
        counted = {id(layer.weight) for layer in self._watch.layers}
        own = [groups[id(one.param)] for one in found]
        rates = [resolve(group, ())["lr"] for group in own]
        clips = {group["kl_clip"] for group in own}
        factors = {clip: clip_factor(found, rates, clip) for clip in clips if clip is not None}
        for one, group in zip(found, own, strict=True):
            direction = one.direction.to(one.grad.dtype)
            if group["kl_clip"] is not None:
                direction = direction * factors[group["kl_clip"]].to(direction)
            self._move_parameter(one.param, group, direction, counted=id(one.param) in counted)

    def _move_parameter(
        self, param: Tensor, group: dict[str, Any], direction: Tensor, *, counted: bool
    ) -> None:
        """Average a direction and move this rank's part of a parameter by it."""
        rule, own = self._rule(group), self.state[param]
        if "momentum_buffer" not in own:
            own.update({**self._initial(param, group), **own})
        if "step" in own and not counted:
            own["step"].add_(1)  # of a bias; a layer's own is counted with its statistics
        weight = _local(param)
        state = {name: _local(value) for name, value in own.items() if name not in FACTORS}
        hypers = resolve(group, rule.hypers())
        buffers = {"momentum_buffer": as_stack(state["momentum_buffer"].to(direction.dtype), 0)}
        direction = rule.momentum(as_stack(direction, 0), buffers, hypers)
        scatter(buffers, [state], stochastic=group["rounding"] == "stochastic")
        apply_(weight, direction.reshape(weight.shape), hypers, rule, stored=weight_of(weight, state, group))

    def _layer_steps(self, members: list[Member], groups: dict[int, dict[str, Any]]) -> list[LayerStep]:
        """Return the layers that have gradients, with this rank's parts of them."""
        waiting = {id(member.param): member for member in members}
        steps: list[LayerStep] = []
        for layer in self._watch.layers:
            own = [waiting.pop(id(p), None) for p in layer.parameters]
            if not any(own):
                continue
            group = groups[id(layer.weight)]
            preconditioner = self._preconditioner(layer, group)
            grads = [None if one is None else _gradient(one) for one in own]
            if group["maximize"]:
                grads = [None if g is None else -g for g in grads]
            hypers = resolve(group, preconditioner.hypers())
            own_state = self.state.get(layer.weight, {})  # kept once the step cannot be refused any more
            steps.append(LayerStep(layer, grads, own_state, preconditioner, hypers))
        if waiting:
            member = next(iter(waiting.values()))
            raise RuntimeError(
                f"{describe(member.group, member.index)} is in a group of K-FAC layers, but no layer of the "
                "model has it"
            )
        return steps

    def kept_layers(self) -> list[Any]:
        """Return the layers whose owner keeps their factors; :mod:`steepest.distributed.checkpoint` asks."""
        from steepest.distributed.kfac_state import KeptLayer

        placed = {id(layer.weight): one for layer, one in self._placed().items()}
        return [
            KeptLayer(
                *(group, i, param, self._rule(group), one.layouts[0], one.owner),
                *(one.layer, self._preconditioner(one.layer, group)),
            )
            for group in self.param_groups
            for i, param in enumerate(group["params"])
            if (one := placed.get(id(param))) and "step" in self.state.get(param, {})
        ]

    def _named(self, entries: list[Any]) -> list[Any]:
        """Give bare parameters their names in the model, where the groups so far have names."""
        if not self.param_groups or "param_names" not in self.param_groups[0]:
            return entries
        names = {id(p): name for name, p in self._watch.model.named_parameters()}
        return [(names[id(entry)], entry) if id(entry) in names else entry for entry in entries]

    def _group_of(self) -> dict[int, dict[str, Any]]:
        return {id(p): group for group in self.param_groups for p in group["params"]}

    def _plan(self) -> None:
        """Tell every layer whether the coming step gathers statistics."""
        groups = self._group_of()
        for layer in self._watch.layers:
            if group := groups.get(id(layer.weight)):
                frequency = group["statistics_frequency"]
                layer.observing = observes_next(self.state.get(layer.weight), frequency)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict bit for bit, or raise before anything changes if it does not fit."""
        layers = {id(layer.weight): layer for layer in self._watch.layers}
        plain, factors = dict(state_dict["state"]), {}
        for old, new in zip(state_dict["param_groups"], self.param_groups, strict=False):
            for key, param in zip(old["params"], new["params"], strict=False):
                if (layer := layers.get(id(param))) is None or key not in plain:
                    continue
                saved = {name: value for name, value in plain[key].items() if name in FACTOR_STATE}
                settings = {**new, **old}
                own = initial_state(self._rule(settings), param, settings, torch.device("meta"))
                plain[key] = {
                    name: value
                    for name, value in plain[key].items()
                    if name not in FACTOR_STATE or name in own  # stochastic rounding reads the layer's step
                }
                if saved or plain[key]:
                    factors[param] = restored(layer, saved, self._preconditioner(layer, settings))
        super().load_state_dict({**state_dict, "state": plain})
        for param, own in factors.items():
            self.state[param] = {**own, **self.state.get(param, {}), "step": own["step"]}
        if self._distributed(p for group in self.param_groups for p in group["params"]):
            from steepest.distributed.owned_state import place

            place(self.kept_layers(), self.state)
        self._plan()

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles carry: the model too, whose copy is watched by the copy."""
        return {**super().__getstate__(), "_watch": self._watch}


FACTORS = FACTOR_STATE - {"step"}
"""What of a weight's state belongs to its layer and is not of the weight's shape."""


def _gradient(member: Member) -> Tensor:
    """Return a gradient in the dtype of the arithmetic, of a DTensor this rank's part."""
    param, label = member.param, describe(member.group, member.index)
    return local_gradient(param, member.grad, label).to(compute_dtype(param))


def _local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a tensor."""
    if not is_sharded(tensor):
        return tensor
    from steepest.distributed.layout import local

    return local(tensor)


def groups_of(params: Any) -> list[dict[str, Any]]:
    """Return what a constructor was given as groups."""
    if isinstance(params, Tensor):
        raise TypeError("params must be an iterable of tensors or groups, got one tensor")
    entries = entries_of(params)
    groups = entries if not entries or isinstance(entries[0], dict) else [{"params": entries}]
    return [{**group, "params": entries_of(group["params"])} for group in groups]


def tensors_of(group: Mapping[str, Any]) -> list[Tensor]:
    """Return the tensors of a group."""
    return [tensor_of(entry) for entry in entries_of(group["params"])]
