"""One step of many parameters: buckets, the rule's update, the move.

Parameters that one call can serve form a bucket: all that a fused kernel takes, or a stack of tensors of one
shape where stacking is a gain, else one parameter by itself. State lives per parameter under its public
names; stacks are views of it, or copied and written back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from steepest import averaging
from steepest.apply import apply_, pairing
from steepest.hypers import resolve
from steepest.kernels import Kernel, fused_kernel
from steepest.rule import Rule
from steepest.steps import StepLength
from steepest.views import as_stack, compute_dtype, gather, initial_state, scatter, state_as_stack

BESIDE = ("step", "average")
"""State that belongs to the adapter; all other is the rule's."""
State = MutableMapping[Tensor, dict[str, Any]]
Member = tuple[dict[str, Any], int]
"""A group and the index of a parameter in it."""
WHOLE_MOVE = {"lr": 1.0}
"""The numbers of a direction that is the move itself, decay included."""
SMALL = 2**14
"""Up to this many entries, calling an operation costs more than copying what it works on."""


@dataclass
class Bucket:
    """Parameters of one group that one call serves: of a kernel, or of a rule for stacks of one shape."""

    group: dict[str, Any]
    rule: Rule
    kernel: Kernel | None
    params: list[Tensor] = field(default_factory=list)


@dataclass
class Move:
    """A direction that waits for its length."""

    param: Tensor
    rule: Rule
    hypers: dict[str, Any]
    direction: Tensor
    momentum: Tensor


def take_step(members: Iterable[Member], rules: Mapping[int, Rule], state: State, loss: Any) -> None:
    """Move every member by its group's rule, found in ``rules`` by the group's id.

    ``loss`` is the closure's, for steps that depend on it.
    """
    waiting = [move for bucket in form_buckets(members, rules, state) for move in advance(bucket, state)]
    move_together(waiting, loss)


def form_buckets(members: Iterable[Member], rules: Mapping[int, Rule], state: State) -> Iterable[Bucket]:
    """Create missing state and return the work of this step."""
    buckets: dict[Any, Bucket] = {}
    shaped: dict[Any, tuple[Rule, Kernel | None]] = {}
    for group, i in members:
        param, batch_dims = group["params"][i], group.get("batch_dims", 0)
        alike = (id(group), param.shape, param.dtype, param.device, param.is_contiguous(), type(param))
        if alike not in shaped:
            rule = rules[id(group)].for_shape(param.shape[batch_dims:])
            shaped[alike] = rule, None if group["fused"] is False else fused_kernel(rule, param, group)
        rule, kernel = shaped[alike]
        own = state[param]
        if not own:
            own.update(initial_state(rule, param, batch_dims))
        key: Any = id(param)
        if kernel is not None:
            key = (id(group), kernel, param.dtype, param.device)
        elif _stacks(rule, param):
            key = (*alike, _host_count(own))
        bucket = buckets.get(key)
        if bucket is None:
            bucket = buckets[key] = Bucket(group, rule, kernel)
        bucket.params.append(param)
    return buckets.values()


def _stacks(rule: Rule, param: Tensor) -> bool:
    """Return whether parameters like this one are cheaper in one stack."""
    return rule.batches or (param.numel() <= SMALL and type(param) in (Parameter, Tensor))


def advance(bucket: Bucket, state: State) -> Iterator[Move]:
    """Update state and weights of a bucket; yield the moves that need a number of the whole network."""
    group, rule, params = bucket.group, bucket.rule, bucket.params
    states = [state[param] for param in params]
    hypers = resolve(group, rule.hypers())
    batch_dims = group.get("batch_dims", 0)
    hypers["lr"] = hypers["lr"] * rule.step.rate(params[0].shape[batch_dims:])
    if rule.needs_step:
        torch._foreach_add_([own["step"] for own in states], 1)
    if bucket.kernel is not None:
        bucket.kernel(params, [p.grad for p in params if p.grad is not None], states, hypers)
        return
    if rule.needs_step:
        hypers["step"] = _step_count(states, params[0].shape[:batch_dims].numel())
    stacked = {
        name: state_as_stack(gather([own[name] for own in states]), params[0].shape, batch_dims)
        for name in states[0]
        if name not in BESIDE
    }
    if rule.needs_weight:
        hypers["weight"] = as_stack(gather([p.to(compute_dtype(p)) for p in params]), batch_dims + 1)
    update = rule.update(_gradients(params, group, rule, hypers), stacked, hypers)
    if len(params) > 1:
        scatter(stacked, states)
    if update is None:
        return
    directions = _split(update.direction, params)
    if rule.step.whole_network:
        for param, direction, m in zip(params, directions, _split(update.momentum, params), strict=True):
            yield Move(param, rule, hypers, direction, m)
        return
    for param, direction in zip(params, directions, strict=True):
        apply_(param, direction, WHOLE_MOVE if update.final else hypers, rule, batch_dims)
        if rule.average:
            averaging.update_(param, state[param], hypers)


def move_together(moves: list[Move], loss: Any) -> None:
    """Apply moves whose length is one number of the whole network."""
    totals: dict[StepLength, Tensor] = {}
    for move in moves:
        share = pairing(move.param, move.direction, move.momentum, move.rule)
        step = move.rule.step
        totals[step] = totals[step] + share.to(totals[step].device) if step in totals else share
    for move in moves:
        step = move.rule.step
        factor = step.factor(totals[step], {**move.hypers, "loss": loss}).to(move.param.device)
        if move.rule.decay == "constrained":  # the pull towards zero is part of the step
            apply_(move.param, move.direction, {**move.hypers, "lr": move.hypers["lr"] * factor}, move.rule)
        else:
            apply_(move.param, move.direction * factor, move.hypers, move.rule)


def _gradients(
    params: list[Tensor], group: Mapping[str, Any], rule: Rule, hypers: Mapping[str, Any]
) -> Tensor:
    """Return the descent gradients as a stack in the dtype of the arithmetic."""
    grad = gather([p.grad.to(compute_dtype(p)) for p in params if p.grad is not None])
    if group["maximize"]:
        grad = -grad
    if rule.decay == "l2" and hypers.get("weight_decay", 0.0) != 0.0:
        grad = grad + hypers["weight_decay"] * gather(params).to(grad.dtype)
    return as_stack(grad, group.get("batch_dims", 0) + 1)


def _split(stack: Tensor, params: list[Tensor]) -> tuple[Tensor, ...]:
    """Return a stack in the shapes of its parameters."""
    return stack.reshape(len(params), *params[0].shape).unbind()


def _host_count(state: Mapping[str, Tensor]) -> float | None:
    """Return the count of steps where reading it costs nothing."""
    step = state.get("step")
    return step.item() if step is not None and step.device.type == "cpu" else None


def _step_count(states: list[dict[str, Tensor]], repeats: int) -> Any:
    """Return the count of steps: a number on the host, a float64 tensor (k, 1, 1) on a device."""
    first = states[0]["step"]
    if first.device.type == "cpu" and not torch.compiler.is_compiling():
        return first.item()
    wide = torch.float32 if first.device.type == "mps" else torch.float64
    return gather([own["step"] for own in states]).to(wide).repeat_interleave(repeats).reshape(-1, 1, 1)
