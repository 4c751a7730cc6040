"""The one place that meets ``torch.optim.Optimizer``.

A step: run the closure, collect the parameters that have gradients, refuse what cannot be handled before
anything changes, and hand the rest to :mod:`steepest.stepping`. Hyperparameters and parameters are read from
``param_groups`` at every step; nothing of them is kept.
"""

from __future__ import annotations

import functools
import inspect
import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch._compile import _disable_dynamo
from torch.optim import Optimizer

from steepest import checkpoint, pieces, stepping
from steepest.auxiliary import ADAMW, aux_options
from steepest.groups import Member, describe, is_matrix, split
from steepest.hypers import Check, reject_misspelt, validate
from steepest.kernels import Kernel, fused_kernel
from steepest.linalg.precision import own_dtypes
from steepest.part import Part
from steepest.roles import AUXILIARY
from steepest.rounding import Rounding
from steepest.rule import Rule
from steepest.screening import check_kind, check_whole, passes
from steepest.spelling import refuse_unknown

ENGINE_KEYS = {
    "maximize": False,
    "fused": None,
    "nonfinite": None,
    "rounding": "nearest",
    "momentum_dtype": None,
}
GROUP_KEYS = ("batch_dims", "role", "rule", "split_dim", "split_sizes")


class RuleOptimizer(Optimizer):
    """Base of every optimizer here: the PyTorch contract around a :class:`~steepest.rule.Rule`.

    A subclass states its hyperparameters in ``__init__`` and its rule in :meth:`recipe`. With ``hybrid`` the
    groups are split: parameters of two or more dimensions by the recipe, all others (and groups marked
    ``rule="aux"``) by an auxiliary AdamW with hyperparameters of its own. Both stand in ``param_groups``.
    """

    hybrid: ClassVar[bool] = False
    checks: ClassVar[Mapping[str, Check]] = {}
    """What the class allows of a hyperparameter, where that is not what others do."""
    _sharding: Any = None
    """The settings of :mod:`steepest.distributed`, if they are not the defaults."""

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
        rounding: Rounding = "nearest",
        momentum_dtype: torch.dtype | None = None,
    ) -> None:
        self._aux = aux_options(aux)
        defaults = {
            **options,
            "maximize": maximize,
            "fused": fused,
            "nonfinite": nonfinite,
            "rounding": rounding,
            "momentum_dtype": momentum_dtype,
        }
        validate(defaults, self.checks)
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
        if "params" not in param_group:
            raise ValueError(f"param_group must hold 'params', got {', '.join(map(repr, param_group))}")
        group = self._prepared(param_group)
        if self.hybrid and group.get("role") in AUXILIARY:
            group.setdefault("rule", "aux")
        validate(group, None if group.get("rule") == "aux" else self.checks)
        rule = self._rule({**self.defaults, **group})
        keys = dict.fromkeys([*self.defaults, *(() if "betas" in self.defaults else rule.hypers())])
        reject_misspelt("param_group", group, (*keys, *(self._aux if self.hybrid else ()), *GROUP_KEYS))
        if not self.hybrid and "rule" in group:
            raise ValueError(f"rule={group['rule']!r}: {type(self).__name__} has one rule for all parameters")
        halves = split(group, self._aux, keys, rule.matrix_only) if self.hybrid else [group]
        count = len(self.param_groups)
        try:
            for half in halves:
                super().add_param_group(half)
                added = self.param_groups[-1]
                if added.get("rule") == "aux":
                    for key in set(self.defaults) - set(self._aux) - set(ENGINE_KEYS):
                        added.pop(key, None)
                self._check_group(added)
                if self._distributed(added["params"]):
                    from steepest.distributed.state import begin

                    begin(self, added)
        except Exception:
            self._drop_groups(count)
            raise

    def _drop_groups(self, first: int) -> None:
        """Take back the groups from this one on, with the state that distributed parameters begin with."""
        for group in self.param_groups[first:]:
            for param in group["params"]:
                self.state.pop(param, None)
        del self.param_groups[first:]

    def _prepared(self, group: dict[str, Any]) -> dict[str, Any]:
        return dict(group)

    def _check_group(self, group: dict[str, Any]) -> None:
        rule = self._rule(group)
        for i, param in enumerate(group["params"]):
            check_whole(group, i)
            if group.get("batch_dims", 0) > param.ndim and group.get("rule") != "aux":
                raise ValueError(
                    f"batch_dims must be at most the number of dimensions, got {group['batch_dims']} "
                    f"for {describe(group, i)}"
                )
            shaped = rule.for_shape(param.shape[group.get("batch_dims", 0) :])
            if shaped.matrix_only and not is_matrix(param, group.get("batch_dims", 0)):
                raise ValueError(f"{shaped.norm!r} needs matrices, got {describe(group, i)}")
            pieces.check(group, i, rule)
            if group["rounding"] == "stochastic" and param.dtype == torch.float16:
                raise ValueError(
                    f"rounding must be 'nearest' or 'kahan' for torch.float16, got 'stochastic' for "
                    f"{describe(group, i)}"
                )
            if group["fused"] and self._kernel(rule, param, group) is None:
                raise ValueError(
                    f"fused=True, but {describe(group, i)} ({param.dtype}, {param.device.type}) has no fused "
                    f"path in {type(self).__name__}; use fused=None for the fastest there is"
                )

    def _kernel(self, rule: Rule, param: torch.Tensor, group: Mapping[str, Any]) -> Kernel | None:
        if not self._distributed([param]):
            return fused_kernel(rule, param, group)
        from steepest.distributed.places import kernel_of
        from steepest.distributed.settings import settings_of

        return kernel_of(rule, param, group, settings_of(self))

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        return ADAMW if group.get("rule") == "aux" else self.recipe(group)

    def _rules(self) -> dict[int, Rule]:
        """Return the rule of every group, by the group's id."""
        return {id(group): self._rule(group) for group in self.param_groups}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; with ``closure``, evaluate it first under ``enable_grad`` and return its loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._move(loss)
        return loss

    @_disable_dynamo  # a step is fused already, and tracing one would take minutes to gain nothing
    def _move(self, loss: Any) -> None:
        with own_dtypes():
            self._move_members(loss)

    def _move_members(self, loss: Any) -> None:
        members = list(self._members())
        rules = self._rules()
        if loss is None and any(rule.step.needs_loss for rule in rules.values()):
            raise RuntimeError(
                f"this {type(self).__name__} takes its step from the loss: call step(closure) with a closure "
                "that clears the gradients, computes the loss, calls backward and returns the loss"
            )
        if self._distributed(p for group in self.param_groups for p in group["params"]):
            from steepest.distributed.settings import settings_of
            from steepest.distributed.step import take_step

            pieces.refuse(self.param_groups)
            take_step(self.param_groups, members, rules, self.state, loss, settings_of(self))
        elif passes(stepping.with_kinds(members, rules)):
            stepping.take_step(members, rules, self.state, loss)

    def _distributed(self, params: Iterable[torch.Tensor]) -> bool:
        """Return whether other ranks have a part in these parameters, without importing what finds out."""
        tensors = sys.modules.get("torch.distributed.tensor")
        return self._sharding is not None or (
            tensors is not None and any(isinstance(p, tensors.DTensor) for p in params)
        )

    def _members(self) -> Iterator[Member]:
        allowed: set[Any] = set()
        for group in self.param_groups:
            for i, param in enumerate(group["params"]):
                grad = param.grad
                if grad is not None and param.numel():
                    kind = param.dtype, grad.dtype, grad.layout
                    if kind not in allowed:
                        check_kind(group, i, param, grad)
                        allowed.add(kind)
                    yield Member(group, i, param, grad)

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state dict; compositions are written as text, so that weights-only loading works."""
        if not self._distributed(p for group in self.param_groups for p in group["params"]):
            return checkpoint.pack(super().state_dict())
        from steepest.distributed.checkpoint import shown

        with shown(self):
            return checkpoint.pack(super().state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict bit for bit, or raise before anything changes if it does not fit."""
        seen: dict[str, Any] = {}
        parts = [{k: v for k, v in group.items() if isinstance(v, Part)} for group in self.param_groups]

        def check(_: Optimizer, final: dict[str, Any]) -> None:
            seen.update(final)
            checkpoint.check(final, self.param_groups, self._rule)

        def repair(_: Optimizer) -> None:
            for group, kept in zip(self.param_groups, parts, strict=True):
                own = ENGINE_KEYS if group.get("rule") == "aux" else self.defaults
                group.update({**own, **group, **kept})
            checkpoint.restore(seen, self.param_groups, self._rule, self.state)
            if self._distributed(p for group in self.param_groups for p in group["params"]):
                from steepest.distributed.checkpoint import settle

                settle(self)

        # The check runs after the user's own pre-hooks, the repair before their post-hooks.
        before = self.register_load_state_dict_pre_hook(check)
        after = self.register_load_state_dict_post_hook(repair, prepend=True)
        try:
            super().load_state_dict(state_dict)
        finally:
            before.remove()
            after.remove()

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles carry."""
        sharding = None if self._sharding is None else self._sharding.portable()
        return {**super().__getstate__(), "_aux": self._aux, "_sharding": sharding}


def _refusing_unknown(init: Callable[..., None]) -> Callable[..., None]:
    parameters = inspect.signature(init).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return init
    known = [name for name in parameters if name not in ("self", "params")]

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        refuse_unknown(type(self).__name__, [k for k in kwargs if k != "params"], known)
        init(self, *args, **kwargs)

    return checked
