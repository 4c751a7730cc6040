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

from steepest import averaging
from steepest.apply import apply_, apply_all_, pairing
from steepest.background import Background
from steepest.groups import Member
from steepest.hypers import resolve
from steepest.kernels import Kernel
from steepest.kinds import Kind, with_kinds
from steepest.pieces import in_pieces
from steepest.rounding import Weight, compute_dtype, weight_of
from steepest.rule import Rule
from steepest.staggering import slots
from steepest.steps import StepLength
from steepest.views import as_stack, gather, initial_state, narrow_names, scatter, state_as_stack

BESIDE = ("step", "average", "compensation")
"""State that belongs to the adapter; all other is the rule's."""
State = MutableMapping[Tensor, dict[str, Any]]
WHOLE_MOVE = {"lr": 1.0}
"""The numbers of a direction that is the move itself, decay included."""


@dataclass
class Bucket:
    """Parameters of one group that one call serves: of a kernel, or of a rule for stacks of one shape."""

    group: dict[str, Any]
    rule: Rule
    kernel: Kernel | None
    params: list[Tensor] = field(default_factory=list)
    grads: list[Tensor] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)
    sums: list[int] = field(default_factory=list)
    """For kernels that asked: what the check of gradients has left, see :class:`steepest.groups.Member`."""
    slots: list[int] = field(default_factory=list)
    """For rules that stagger: at which step of a cycle each parameter refreshes."""


@dataclass
class Move:
    """A direction that waits for its length."""

    param: Tensor
    rule: Rule
    hypers: dict[str, Any]
    direction: Tensor
    momentum: Tensor
    stored: Weight
    groups: tuple[Any, ...] = ()
    """The process groups over which the parameter's entries are split."""


def take_step(members: Iterable[Member], rules: Mapping[int, Rule], state: State, loss: Any) -> None:
    """Move every member by its group's rule, found in ``rules`` by the group's id.

    ``loss`` is the closure's, for steps that depend on it.
    """
    members, state = in_pieces(members, rules, state)
    waiting = [move for bucket in form_buckets(members, rules, state) for move in advance(bucket)]
    move_together(waiting, loss)


def form_buckets(members: Iterable[Member], rules: Mapping[int, Rule], state: State) -> Iterable[Bucket]:
    """Create missing state and return the work of this step."""
    buckets: dict[Any, Bucket] = {}
    fused: dict[Kind, Bucket] = {}
    group: dict[str, Any] = {}
    own_slots: dict[int, int] = {}
    for member in with_kinds(members, rules):
        param, kind = member.param, member.kind
        if group is not member.group:
            group = member.group
            own_slots = slots(group, rules[id(group)])
            fused = {}
        own = state[param]
        if not own:
            own.update(initial_state(kind.rule, param, group))
        bucket = fused.get(kind) or _bucket(kind, group, param, own, buckets)
        if kind.kernel is not None:
            fused[kind] = bucket
        bucket.params.append(param)
        bucket.grads.append(member.grad)
        bucket.states.append(own)
        bucket.sums.append(member.sums)
        if own_slots:
            bucket.slots.append(own_slots[id(param)])
    return buckets.values()


def _bucket(
    kind: Kind, group: dict[str, Any], param: Tensor, own: Mapping[str, Any], buckets: dict[Any, Bucket]
) -> Bucket:
    """Return the bucket that takes this parameter, a new one if it must be."""
    if kind.kernel is not None:
        key = id(group), kind.kernel, param.dtype, param.device
    else:
        key = (id(group), kind, _host_count(own)) if kind.most > 1 else id(param)
    bucket = buckets.get(key)
    if bucket is not None and len(bucket.params) == kind.most:
        buckets[(key, len(buckets))] = buckets.pop(key)
        bucket = None
    if bucket is None:
        bucket = buckets[key] = Bucket(group, kind.rule, kind.kernel)
    return bucket


def advance(bucket: Bucket) -> Iterator[Move]:
    """Update state and weights of a bucket; yield the moves that need a number of the whole network."""
    group, rule, params, states = bucket.group, bucket.rule, bucket.params, bucket.states
    hypers = resolve(group, rule.hypers())
    batch_dims = group.get("batch_dims", 0)
    hypers["lr"] = hypers["lr"] * rule.step.rate(params[0].shape[batch_dims:])
    if "step" in states[0]:
        torch._foreach_add_([own["step"] for own in states], 1)
    if bucket.kernel is not None:
        known = {"sums": bucket.sums} if any(bucket.sums) else {}
        bucket.kernel(params, bucket.grads, states, hypers, **known)
        return
    if rule.needs_step:
        hypers["step"] = step_count(states, params[0].shape[:batch_dims].numel())
    if bucket.slots:
        repeats = params[0].shape[:batch_dims].numel()
        hypers["slots"] = tuple(slot for slot in bucket.slots for _ in range(repeats))
    dtype, narrow = compute_dtype(params[0]), narrow_names(rule, params[0], group)
    stacked = {
        name: state_as_stack(gather([own[name] for own in states]), params[0].shape, batch_dims)
        for name in states[0]
        if name not in BESIDE
    }
    stacked.update({name: stacked[name].to(dtype) for name in narrow})
    if rule.preconditioner.scheduled:
        hypers["background"] = Background(states, stacked)
    stored = [weight_of(param, own, group) for param, own in zip(params, states, strict=True)]
    if rule.needs_weight:
        weights = [one.read(param) for one, param in zip(stored, params, strict=True)]
        hypers["weight"] = as_stack(gather(weights), batch_dims + 1)
    update = rule.update(_gradients(bucket, hypers), stacked, hypers)
    copied = {name: x for name, x in stacked.items() if name in narrow or (len(params) > 1 and _changed(x))}
    scatter(copied, states, stochastic=group.get("rounding") == "stochastic")
    if "background" in hypers:
        hypers["background"].start()
    if update is None:
        return
    directions = _split(update.direction, params)
    if rule.step.whole_network:
        momenta = _split(update.momentum, params)
        for param, direction, m, one in zip(params, directions, momenta, stored, strict=True):
            yield Move(param, rule, hypers, direction, m, one)
        return
    apply_all_(params, directions, WHOLE_MOVE if update.final else hypers, rule, batch_dims, stored)
    if rule.average:
        averaging.update_all_(params, states, hypers)


def _changed(stack: Tensor) -> bool:
    """Return whether a copy may have been written to since it was made."""
    return stack.is_inference() or stack._version > 0


def move_together(moves: list[Move], loss: Any) -> None:
    """Apply moves whose length is one number of the whole network."""
    totals = _totals(moves)
    for move in moves:
        step = move.rule.step
        factor = step.factor(totals[step], {**move.hypers, "loss": loss}).to(move.param.device)
        if move.rule.decay == "constrained":  # the pull towards zero is part of the step
            hypers = {**move.hypers, "lr": move.hypers["lr"] * factor}
            apply_(move.param, move.direction, hypers, move.rule, stored=move.stored)
        else:
            apply_(move.param, move.direction * factor, move.hypers, move.rule, stored=move.stored)


def _totals(moves: list[Move]) -> dict[StepLength, Tensor]:
    """Return <M, S> of the whole network for each step length."""
    shares: dict[tuple[StepLength, tuple[Any, ...]], Tensor] = {}
    for move in moves:
        share = pairing(move.param, move.direction, move.momentum, move.rule)
        key = move.rule.step, move.groups
        shares[key] = shares[key] + share.to(shares[key].device) if key in shares else share
    totals: dict[StepLength, Tensor] = {}
    for (step, groups), share in shares.items():
        if groups:
            from steepest.distributed.collectives import all_reduce

            all_reduce(share, groups, "network")
        totals[step] = totals[step] + share.to(totals[step].device) if step in totals else share
    return totals


def _gradients(bucket: Bucket, hypers: Mapping[str, Any]) -> Tensor:
    """Return the descent gradients as a stack in the dtype of the arithmetic."""
    group, params = bucket.group, bucket.params
    dtype = compute_dtype(params[0])
    grad = gather([grad.to(dtype) for grad in bucket.grads])
    if group["maximize"]:
        grad = -grad
    if decays_gradient(bucket.rule, hypers):
        grad = grad + hypers["weight_decay"] * gather(params).to(dtype)
    return as_stack(grad, group.get("batch_dims", 0) + 1)


def decays_gradient(rule: Rule, hypers: Mapping[str, Any]) -> bool:
    """Say whether weight decay is added to gradients; a number on a device is not read for it."""
    decay = hypers.get("weight_decay", 0.0)
    return rule.decay == "l2" and (isinstance(decay, Tensor) or decay != 0.0)


def _split(stack: Tensor, params: list[Tensor]) -> tuple[Tensor, ...]:
    """Return a stack in the shapes of its parameters."""
    return stack.reshape(len(params), *params[0].shape).unbind()


def _host_count(state: Mapping[str, Tensor]) -> float | None:
    """Return the count of steps where reading it costs nothing."""
    step = state.get("step")
    return step.item() if step is not None and step.device.type == "cpu" else None


def step_count(states: list[dict[str, Tensor]], repeats: int) -> Any:
    """Return the count of steps: a number on the host, a float64 tensor (k, 1, 1) on a device."""
    first = states[0]["step"]
    if first.device.type == "cpu":
        return first.item()
    wide = torch.float32 if first.device.type == "mps" else torch.float64
    return gather([own["step"] for own in states]).to(wide).repeat_interleave(repeats).reshape(-1, 1, 1)
