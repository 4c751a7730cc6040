"""Clause 4: the schedulers of ``torch.optim.lr_scheduler`` drive the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import lr_scheduler

from steepest.checks.registry import check, expect
from steepest.checks.subject import Subject, same_bits

_STEPS = 6


def _one_cycle(optimizer: Any) -> Any:
    cycled = "momentum" in optimizer.defaults or "betas" in optimizer.defaults
    top = [2 * float(group["lr"]) for group in optimizer.param_groups]
    return lr_scheduler.OneCycleLR(optimizer, max_lr=top, total_steps=_STEPS + 2, cycle_momentum=cycled)


def _warmup_then_cosine(optimizer: Any) -> Any:
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=0.25, total_iters=3)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=_STEPS)
    return lr_scheduler.SequentialLR(optimizer, [warmup, cosine], milestones=[3])


_SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda t: 0.5**t),
    "CosineAnnealingLR": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=_STEPS),
    "OneCycleLR": _one_cycle,
    "SequentialLR": _warmup_then_cosine,
    "ReduceLROnPlateau": lambda optimizer: lr_scheduler.ReduceLROnPlateau(optimizer, patience=0),
}


def _attach(subject: Subject, name: str) -> None:
    params, twins = subject.params(), subject.params()
    scheduled, by_hand = subject.build(params), subject.build(twins)
    before = [float(group["lr"]) for group in scheduled.param_groups]
    scheduler = _SCHEDULERS[name](scheduled)
    for t in range(_STEPS):
        for group, hand in zip(scheduled.param_groups, by_hand.param_groups, strict=True):
            hand.update({key: value for key, value in group.items() if key in ("lr", "momentum", "betas")})
        subject.run(scheduled, params, 1, start=t)
        subject.run(by_hand, twins, 1, start=t)
        if name == "ReduceLROnPlateau":
            scheduler.step(1.0)
        else:
            scheduler.step()
    after = [float(group["lr"]) for group in scheduled.param_groups]
    still = sum(new == old for new, old in zip(after, before, strict=True) if old != 0)
    expect(
        not still, f"{name} to change the lr of every group", f"{still} of {len(after)} groups kept theirs"
    )
    unscheduled = subject.trajectory(subject.params(), _STEPS)
    expect(
        not same_bits(unscheduled, [p.detach() for p in params]),
        f"{name} to change the training",
        "the weights are those of a constant lr",
        "read lr from the groups at every step",
    )
    expect(
        same_bits([p.detach() for p in params], [p.detach() for p in twins]),
        f"{name} to give the weights of the same lr set by hand",
        "they differ",
        "read lr, momentum and betas from the groups at every step",
    )


def _register(name: str) -> None:
    check(f"schedulers.{name}", 4, summary=f"{name} attaches and changes the lr of every group")(
        lambda subject: _attach(subject, name)
    )


for _name in _SCHEDULERS:
    _register(_name)
