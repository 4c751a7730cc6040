"""The one place that meets ``torch.optim.Optimizer``.

A step: collect the parameters that have gradients, refuse what cannot be handled before anything changes,
form buckets that one call of the rule can serve, and apply each direction in place. Hyperparameters and
parameters are read from ``param_groups`` at every step; nothing of them is kept.
"""

from __future__ import annotations

import functools
import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from steepest import checkpoint
from steepest.apply import apply_
from steepest.auxiliary import ADAMW, aux_options
from steepest.groups import describe, split
from steepest.hypers import reject_misspelt, reject_unknown, resolve, validate
from steepest.kernels import Kernel, fused_kernel
from steepest.rule import Rule
from steepest.screening import check_kind, passes
from steepest.views import as_stack, compute_dtype, gather, initial_state, scatter, state_as_stack

ENGINE_KEYS = {"maximize": False, "fused": None, "nonfinite": None}
GROUP_KEYS = ("batch_dims", "rule")


@dataclass
class Bucket:
    """Parameters of one group that one call serves: of a kernel, or of a rule for stacks of one shape."""

    group: dict[str, Any]
    rule: Rule
    kernel: Kernel | None
    params: list[Tensor] = field(default_factory=list)


class RuleOptimizer(Optimizer):
    """Base of every optimizer here: the PyTorch contract around a :class:`~steepest.rule.Rule`.

    A subclass states its hyperparameters in ``__init__`` and its rule in :meth:`recipe`. With ``hybrid`` the
    groups are split: parameters of two or more dimensions by the recipe, all others (and groups marked
    ``rule="aux"``) by an auxiliary AdamW with hyperparameters of its own. Both stand in ``param_groups``.
    """

    hybrid: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let every constructor answer an unknown argument with a suggestion."""
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _refusing_unknown(cls.__init__)

    def __init__(
        self,
        params: Any,
        options: Mapping[str, Any],
        *,
        aux: Mapping[str, Any] | None = None,
        maximize: bool = False,
        fused: bool | None = None,
        nonfinite: str | None = None,
    ) -> None:
        self._aux = aux_options(aux)
        defaults = {**options, "maximize": maximize, "fused": fused, "nonfinite": nonfinite}
        validate(defaults)
        self.recipe(defaults)  # parts refuse bad structural choices
        super().__init__(params, defaults)

    @classmethod
    @abstractmethod
    def recipe(cls, group: Mapping[str, Any]) -> Rule:
        """Return the rule for a group's structural choices."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, or for hybrids its matrix and auxiliary halves, after checking everything in it."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, got {param_group!r}")
        group = self._prepared(param_group)
        known = (*self.defaults, *GROUP_KEYS)
        reject_misspelt("param_group", group, known)
        validate(group)
        if not self.hybrid and "rule" in group:
            raise ValueError(f"rule={group['rule']!r}: {type(self).__name__} has one rule for all parameters")
        halves = split(group, self._aux, self.defaults) if self.hybrid else [group]
        count = len(self.param_groups)
        try:
            for half in halves:
                super().add_param_group(half)
                added = self.param_groups[-1]
                if added.get("rule") == "aux":
                    for key in set(self.defaults) - set(self._aux) - set(ENGINE_KEYS):
                        added.pop(key, None)
                self._check_group(added)
        except Exception:
            del self.param_groups[count:]
            raise

    def _prepared(self, group: dict[str, Any]) -> dict[str, Any]:
        return dict(group)

    def _check_group(self, group: dict[str, Any]) -> None:
        rule = self._rule(group)
        for i, param in enumerate(group["params"]):
            if group["fused"] and fused_kernel(rule, param, group) is None:
                raise ValueError(
                    f"fused=True, but {describe(group, i)} ({param.dtype}, {param.device.type}) has no fused "
                    f"path in {type(self).__name__}; use fused=None for the fastest there is"
                )

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        return ADAMW if group.get("rule") == "aux" else self.recipe(group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; with ``closure``, evaluate it first under ``enable_grad`` and return its loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        members = list(self._members())
        if not passes(members):
            return loss
        for bucket in self._buckets(members):
            self._advance(bucket)
        return loss

    def _members(self) -> Iterator[tuple[dict[str, Any], int]]:
        for group in self.param_groups:
            for i, param in enumerate(group["params"]):
                if param.grad is not None and param.numel():
                    check_kind(group, i)
                    yield group, i

    def _buckets(self, members: Iterable[tuple[dict[str, Any], int]]) -> Iterable[Bucket]:
        """Create missing state and return the work of this step."""
        buckets: dict[Any, Bucket] = {}
        rules: dict[Any, Rule] = {}
        for group, i in members:
            param, batch_dims = group["params"][i], group.get("batch_dims", 0)
            shape = param.shape[batch_dims:]
            rule = rules.get((id(group), shape))
            if rule is None:
                rule = rules[id(group), shape] = self._rule(group).for_shape(shape)
            state = self.state[param]
            if not state:
                state.update(initial_state(rule, param, batch_dims, param.device))
            kernel = None if group["fused"] is False else fused_kernel(rule, param, group)
            key: Any = id(param)
            if kernel is not None:
                key = (id(group), kernel)
            elif rule.batches:
                count = state["step"].item() if rule.needs_step and param.device.type == "cpu" else None
                key = (id(group), rule, shape, param.dtype, param.device, count)
            buckets.setdefault(key, Bucket(group, rule, kernel)).params.append(param)
        return buckets.values()

    def _advance(self, bucket: Bucket) -> None:
        """Take one step for the parameters of a bucket."""
        group, rule, params = bucket.group, bucket.rule, bucket.params
        states = [self.state[param] for param in params]
        hypers = resolve(group)
        if rule.needs_step:
            torch._foreach_add_([state["step"] for state in states], 1)
        if bucket.kernel is not None:
            bucket.kernel(params, states, hypers)
            return
        if rule.needs_step:
            hypers["step"] = _step_count(states)
        batch_dims = group.get("batch_dims", 0)
        stacks = [
            {name: state_as_stack(v, p, batch_dims) for name, v in state.items() if name != "step"}
            for p, state in zip(params, states, strict=True)
        ]
        stacked = {name: gather([stack[name] for stack in stacks]) for name in stacks[0]}
        grad = gather([self._gradient(p, group, rule, hypers, batch_dims) for p in params])
        direction = rule.update(grad, stacked, hypers)
        if len(params) > 1:
            scatter(stacked, stacks)
        counts = [param.shape[:batch_dims].numel() for param in params]
        for param, part in zip(params, direction.split(counts), strict=True):
            apply_(param, part.reshape(param.shape), hypers, rule)

    @staticmethod
    def _gradient(
        param: Tensor, group: Mapping[str, Any], rule: Rule, hypers: Mapping[str, Any], batch_dims: int
    ) -> Tensor:
        dtype = compute_dtype(param)
        assert param.grad is not None
        grad = param.grad.to(dtype)
        if group["maximize"]:
            grad = -grad
        if rule.decay == "l2" and hypers.get("weight_decay", 0.0) != 0.0:
            grad = grad + hypers["weight_decay"] * param.to(dtype)
        return as_stack(grad, batch_dims)

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state dict; compositions are written as text, so that weights-only loading works."""
        return checkpoint.pack(super().state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict bit for bit, or raise before anything changes if it does not fit."""
        seen: dict[str, Any] = {}
        rules = [{k: v for k, v in group.items() if isinstance(v, Rule)} for group in self.param_groups]

        def check(_: Optimizer, final: dict[str, Any]) -> None:
            seen.update(final)
            checkpoint.check_groups(final["param_groups"], self.param_groups)
            for label, saved, template, _param in self._saved_states(final):
                checkpoint.check_state(label, saved, template)

        def restore(_: Optimizer) -> None:
            for group, kept in zip(self.param_groups, rules, strict=True):
                group.update(kept)
                if group.get("rule") != "aux":
                    for key, value in self.defaults.items():
                        group.setdefault(key, value)
                for key, value in ENGINE_KEYS.items():
                    group.setdefault(key, value)
            for _label, saved, template, param in self._saved_states(seen):
                self.state[param] = {
                    name: checkpoint.restored(value, template[name], param.device)
                    for name, value in saved.items()
                }

        # The check runs after the user's own pre-hooks, the repair before their post-hooks.
        before = self.register_load_state_dict_pre_hook(check)
        after = self.register_load_state_dict_post_hook(restore, prepend=True)
        try:
            super().load_state_dict(state_dict)
        finally:
            before.remove()
            after.remove()

    def _saved_states(
        self, state_dict: Mapping[str, Any]
    ) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Tensor], Tensor]]:
        """Yield label, saved state, template of the expected state, and parameter, for all with state."""
        for saved_group, group in zip(state_dict["param_groups"], self.param_groups, strict=False):
            batch_dims = group.get("batch_dims", 0)
            for i, (key, param) in enumerate(zip(saved_group["params"], group["params"], strict=False)):
                saved = state_dict["state"].get(key)
                if saved:
                    structure = {**group, **{k: v for k, v in saved_group.items() if k != "recipe"}}
                    rule = self._rule(structure).for_shape(param.shape[batch_dims:])
                    template = initial_state(rule, param, batch_dims, torch.device("meta"))
                    yield describe(group, i), saved, template, param

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles carry."""
        return {**super().__getstate__(), "_aux": self._aux}


def _step_count(states: list[dict[str, Tensor]]) -> Any:
    """Return the count of steps: a number on the CPU, a float64 tensor (k, 1, 1) on a device."""
    first = states[0]["step"]
    if first.device.type == "cpu" and not torch.compiler.is_compiling():
        return first.item()
    wide = torch.float32 if first.device.type == "mps" else torch.float64
    return torch.stack([state["step"] for state in states]).to(wide).reshape(-1, 1, 1)


def _refusing_unknown(init: Callable[..., None]) -> Callable[..., None]:
    parameters = inspect.signature(init).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return init
    known = [name for name in parameters if name not in ("self", "params")]

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        reject_unknown(type(self).__name__, [k for k in kwargs if k != "params"], known)
        init(self, *args, **kwargs)

    return checked
