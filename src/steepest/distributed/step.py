"""One step of an optimizer some of whose parameters are distributed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from steepest import kinds, stepping
from steepest.distributed import ownership
from steepest.distributed.agreement import GO_ON, NOT_FINITE_HERE, SKIP, agree
from steepest.distributed.fixed import fixed
from steepest.distributed.layout import local, local_gradient
from steepest.distributed.moving import advance, move
from steepest.distributed.places import Place, owned_by, places_of
from steepest.distributed.reductions import run_together
from steepest.distributed.settings import Settings
from steepest.distributed.shard import Shard
from steepest.distributed.state import initial_state
from steepest.groups import Member, describe
from steepest.hypers import resolve
from steepest.rounding import compute_dtype, weight_of
from steepest.rule import Rule
from steepest.screening import passes
from steepest.staggering import slots
from steepest.stepping import Move


def take_step(
    groups: Sequence[dict[str, Any]],
    members: Sequence[Member],
    rules: Mapping[int, Rule],
    state: MutableMapping[Tensor, dict[str, Any]],
    loss: Any,
    settings: Settings,
) -> None:
    """Move every member, wherever its rule is computed; all ranks move, or none does.

    Raises:
        RuntimeError, FloatingPointError: as :func:`steepest.distributed.agreement.agree`, on every rank.
    """
    places = places_of(groups, rules, settings)
    if screened(groups, places, members):
        move_members(groups, members, places, rules, state, loss, settings)


def move_members(
    groups: Sequence[dict[str, Any]],
    members: Sequence[Member],
    places: Mapping[Tensor, Place],
    rules: Mapping[int, Rule],
    state: MutableMapping[Tensor, dict[str, Any]],
    loss: Any,
    settings: Settings,
) -> None:
    """Move members on which all ranks have agreed; owners follow from all ``groups``."""
    members = [replace(member, grad=_gradient(member)) for member in members]
    plain = [member for member in members if member.param not in places]
    work = _Work(rules, {})
    summed: dict[object, list[Shard]] = {}
    owned: list[Shard] = []
    weights = [local(member.param) for member in members]
    for member, weight in zip(members, weights, strict=True):
        place = places.get(member.param)
        if place is None:
            continue
        own = state[member.param]
        if not own:
            own.update(initial_state(place, member.param, member.group))
        if place.way in ("alone", "block"):
            work.add(member, weight, place, own)
            continue
        shard = work.shard(member, weight, place, own)
        if place.way == "summed":
            summed.setdefault(_alike(shard, place), []).append(shard)
        else:
            owned.append(shard)
    moves: list[Move | None] = []
    arriving: Iterable[Any] = ()
    if owned:
        from steepest.distributed.owned import directions

        arriving = directions(owned, settings, ownership.owners(groups, owned_by(places)))
    moves += work.done()
    moves += [
        moved for bucket in stepping.form_buckets(plain, rules, state) for moved in stepping.advance(bucket)
    ]
    for moved in run_together(map(advance, summed.values()), "norms"):
        moves += moved
    moves += _moved(arriving)
    # Sums are made in the order of moves, which must be the same on every rank.
    order = {id(weight): i for i, weight in enumerate(weights)}
    waiting = [moved for moved in moves if moved is not None]
    waiting.sort(key=lambda moved: order[id(moved.param)])
    stepping.move_together(waiting, loss)


def _alike(shard: Shard, place: Place) -> object:
    """Return what shards that go into one stack have in common; the same on every rank."""
    small = place.layout.shape.numel() <= kinds.SMALL * place.layout.size
    if not small or place.rule.constraint:
        return id(shard.param)
    count = shard.hypers.get("step")
    dtypes = tuple(value.dtype for value in shard.kept.values())
    return (
        *(id(shard.group), id(place), shard.weight.dtype, dtypes),
        None if isinstance(count, Tensor) else count,
    )


def screened(
    groups: Sequence[Mapping[str, Any]], places: Mapping[Tensor, Place], members: Sequence[Member]
) -> bool:
    """Return whether the step may go on, as all ranks agree; those without a place are looked at here."""
    plain = [member for member in members if member.param not in places]
    try:
        verdict, error = (GO_ON if passes(plain) else SKIP), None
    except FloatingPointError as raised:
        verdict, error = NOT_FINITE_HERE, raised
    try:
        return agree(groups, places, verdict)
    except FloatingPointError as raised:
        raise error or raised from None


@dataclass
class _Work:
    """What this rank does by itself: its parts as parameters of groups of their own."""

    rules: Mapping[int, Rule]
    groups: dict[tuple[int, Rule], dict[str, Any]]
    parts: list[Member] = field(default_factory=list)
    states: dict[Tensor, dict[str, Any]] = field(default_factory=dict)
    wholes: dict[int, tuple[Member, Place]] = field(default_factory=dict)
    """The parameter of each part, and its place, by the part's id."""
    idle: list[Move] = field(default_factory=list)
    hypers: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    slots: dict[int, dict[int, int]] = field(default_factory=dict)

    def add(self, member: Member, weight: Tensor, place: Place, own: dict[str, Any]) -> None:
        """Take a part whose rule needs no other rank."""
        kept = {name: local(value) for name, value in own.items()}
        if not weight.numel():
            self._rest(member, place, weight, kept)
            return
        rule = self.rules[id(member.group)]
        if place.way == "alone" and place.layout.cuts_matrices:
            rule = fixed(place.rule, place.layout.shape[place.layout.batch_dims :])
        group = self.groups.setdefault((id(member.group), rule), {**member.group, "params": []})
        self.parts.append(Member(group, len(group["params"]), weight, member.grad))
        group["params"].append(weight)
        self.states[weight], self.wholes[id(weight)] = kept, (member, place)

    def _rest(self, member: Member, place: Place, weight: Tensor, kept: dict[str, Any]) -> None:
        """Count the step of an empty part, and take part in sums over ranks."""
        if "step" in kept:
            kept["step"] += 1
        counts = place.rule.preconditioner.skipped
        if place.rule.step.whole_network and not (counts and kept["step"] <= counts):
            hypers = self._resolved(member, place)
            stored, groups = weight_of(weight, kept, member.group), place.layout.shard_groups
            self.idle.append(Move(weight, place.rule, hypers, weight, weight, stored, groups))

    def done(self) -> Iterator[Move]:
        """Move all parts; return the moves that wait for a number of the whole network."""
        rules = {id(group): rule for (_, rule), group in self.groups.items()}
        for bucket in stepping.form_buckets(self.parts, rules, self.states):
            if bucket.slots:
                bucket.slots = [self._slot(self.wholes[id(part)][0]) for part in bucket.params]
            for moved in stepping.advance(bucket):
                moved.groups = self.wholes[id(moved.param)][1].layout.shard_groups
                yield moved
        yield from self.idle

    def shard(self, member: Member, weight: Tensor, place: Place, own: dict[str, Any]) -> Shard:
        """Return a parameter whose rule needs other ranks, with its step counted."""
        group, layout, rule = member.group, place.layout, place.rule
        hypers = self._resolved(member, place)
        if "step" in own:
            own["step"] += 1
        if rule.needs_step:
            repeats = weight.shape[: layout.batch_dims].numel()
            hypers = {**hypers, "step": stepping.step_count([own], repeats)}
        if rule.preconditioner.staggered > 1:
            hypers = {**hypers, "slots": (self._slot(member),) * layout.shape[: layout.batch_dims].numel()}
        grad = member.grad.to(compute_dtype(weight))
        if group["maximize"]:
            grad = -grad
        if stepping.decays_gradient(rule, hypers):
            grad = grad + hypers["weight_decay"] * weight.to(grad.dtype)
        return Shard(group, member.index, member.param, layout, rule, hypers, weight, grad, own)

    def _slot(self, member: Member) -> int:
        """Return at which step of a cycle a parameter refreshes, as on one process."""
        key = id(member.group)
        if key not in self.slots:
            self.slots[key] = slots(member.group, self.rules[key])
        return self.slots[key][id(member.param)]

    def _resolved(self, member: Member, place: Place) -> dict[str, Any]:
        """Return the numbers of a group for one shape, read once a step."""
        key = id(member.group), id(place)
        if key not in self.hypers:
            hypers = resolve(member.group, place.rule.hypers())
            rate = place.rule.step.rate(place.layout.shape[place.layout.batch_dims :])
            self.hypers[key] = {**hypers, "lr": hypers["lr"] * rate}
        return self.hypers[key]


def _gradient(member: Member) -> Tensor:
    """Return this rank's part of a gradient, placed as its parameter is."""
    return local_gradient(member.param, member.grad, describe(member.group, member.index))


def _moved(arriving: Iterable[tuple[Shard, Tensor | None, Tensor | None]]) -> list[Move | None]:
    """Move shards as their directions come; those that need norms of whole matrices, together at the end."""
    moves: list[Move | None] = []
    turning = []
    for shard, direction, momentum in arriving:
        if direction is None:
            continue
        program = move(shard, direction, momentum)
        if shard.rule.constraint == "hyperball":
            turning.append(program)
        else:
            moves += run_together([program], "norms")
    return moves + run_together(turning, "norms")
