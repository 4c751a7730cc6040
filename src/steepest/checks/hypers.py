"""Clauses 3 and 4: hyperparameters are visible, overridable, checked, and may be tensors."""

from __future__ import annotations

import inspect
import re
from typing import Any

import torch

from steepest.checks.registry import CheckFailed, NotClaimed, check, expect
from steepest.checks.subject import REFUSALS, Subject, displacement, find_group, need, same_bits

CONVENTIONAL = ("lr", "weight_decay", "betas", "momentum", "eps", "maximize")
_BAD: dict[str, tuple[Any, ...]] = {
    "lr": (-1.0, float("nan"), "fast"),
    "weight_decay": (-0.5, float("nan")),
    "momentum": (-0.5, float("nan")),
    "eps": (-1.0, float("nan")),
    "betas": ((1.0, 0.9), (0.9, -0.1), (0.9, float("nan")), (0.9,)),
}
_RANGE = re.compile(r"[<>≤≥\[\]()]|between|positive|negative|at least|pair|two|number", re.IGNORECASE)


@check("hypers.in_groups", 3)
def in_groups(subject: Subject) -> None:
    """Every group has an lr, and conventional hyperparameters are in the groups under their own names."""
    params = subject.params()
    optimizer = subject.build(params)
    without = sum("lr" not in group for group in optimizer.param_groups)
    expect(not without, "'lr' in every group", f"{without} of {len(optimizer.param_groups)} groups have none")
    for name in CONVENTIONAL:
        if name in subject.signature.parameters and subject.is_number(name):
            held = any(name in group for group in optimizer.param_groups)
            expect(held, f"{name!r} in the param_groups", "no group has it", "pass it in `defaults`")
    changed = optimizer.param_groups[0]["lr"] * 0.5
    optimizer = subject.build(subject.params(), lr=changed)
    found = find_group(optimizer, optimizer.param_groups[0]["params"][0])["lr"]
    expect(found == changed, f"lr={changed} to be stored unchanged", f"the group has {found}")


@check("hypers.per_group_override", 3)
def per_group_override(subject: Subject) -> None:
    """Values given in a group dictionary apply to that group alone."""
    base = float(subject.build(subject.pair()).param_groups[0]["lr"])
    settings: list[dict[str, Any]] = [{"lr": 0.5 * base}]
    if subject.takes("weight_decay", 0.1):
        settings.append({"weight_decay": 0.4})
    for override in settings:
        (name, value), params = next(iter(override.items())), subject.pair()
        groups = [{"params": params[:1], **override}, {"params": params[1:]}]
        optimizer = subject.build_or_unclaimed(groups, "several groups are")
        found = find_group(optimizer, params[0])[name]
        expect(found == value, f"{name}={value} in the group that gave it", f"it holds {found}")
        end = subject.run(optimizer, params, 5)
        plain, changed = subject.pair(), subject.pair()
        gap_first = displacement(subject.pair()[:1], end[:1], subject.trajectory(changed, **override)[:1])
        gap_second = displacement(subject.pair()[1:], end[1:], subject.trajectory(plain)[1:])
        hint = "read every hyperparameter from the group of the parameter being stepped"
        expect(
            gap_first < 2e-2,
            f"group {name}={value} to act as {name}={value}",
            f"off by {gap_first:.1e}",
            hint,
        )
        expect(gap_second < 2e-2, f"the other group to keep its own {name}", f"off by {gap_second:.1e}", hint)


@check("hypers.unknown_argument", 3)
def unknown_argument(subject: Subject) -> None:
    """An unknown constructor argument is a TypeError."""
    _unknown_argument_message(subject)


@check("hypers.unknown_argument_suggestion", 3, strict=True)
def unknown_argument_suggestion(subject: Subject) -> None:
    """The TypeError for a misspelt argument names the argument that was meant."""
    message = _unknown_argument_message(subject)
    meant, typed = _misspelt(subject)
    rest = message.replace(typed, "")
    expect(meant in rest, f"the TypeError for {typed!r} to suggest {meant!r}", f"it says: {message[:120]}")


def _misspelt(subject: Subject) -> tuple[str, str]:
    return ("weight_decay", "weight_decya") if subject.takes("weight_decay", 0.0) else ("lr", "lrr")


def _unknown_argument_message(subject: Subject) -> str:
    _, typed = _misspelt(subject)
    try:
        subject.build(subject.params(), **{typed: 0.1})
    except TypeError as error:
        return str(error)
    except Exception as error:
        raise CheckFailed(f"expected TypeError for the unknown argument {typed!r}; got {error!r}") from error
    raise CheckFailed(
        f"expected TypeError for the unknown argument {typed!r}; it was accepted silently\n"
        "hint: refuse what **kwargs does not know"
    )


@check("hypers.bad_lr", 3)
def bad_lr(subject: Subject) -> None:
    """A negative lr is a ValueError."""
    try:
        subject.build(subject.params(), lr=-1.0)
    except ValueError:
        return
    except Exception as error:
        raise CheckFailed(f"expected ValueError for lr=-1.0; got {error!r}") from error
    raise CheckFailed("expected ValueError for lr=-1.0; it was accepted\nhint: check lr in the constructor")


@check("hypers.bad_value", 3, strict=True)
def bad_value(subject: Subject) -> None:
    """Each bad value is a ValueError (TypeError for a wrong type) naming argument, value and range."""
    for name, values in _BAD.items():
        if not subject.takes(name, 0.5) or not subject.is_number(name):
            continue
        for value in values:
            _expect_named_error(
                name,
                value,
                lambda n=name, v=value: subject.build(subject.params(), **{n: v}),
                "the constructor",
            )


@check("hypers.bad_group_value", 3, strict=True)
def bad_group_value(subject: Subject) -> None:
    """A bad value in a group dictionary is refused like one in the constructor, and adds no group."""
    _expect_named_error(
        "lr",
        -1.0,
        lambda: subject.build([{"params": subject.params(), "lr": -1.0}]),
        "a group given to the constructor",
    )
    optimizer = subject.build(subject.params())
    groups = len(optimizer.param_groups)
    _expect_named_error(
        "lr",
        -1.0,
        lambda: optimizer.add_param_group({"params": subject.params(), "lr": -1.0}),
        "add_param_group",
    )
    expect(len(optimizer.param_groups) == groups, "a refused group not to be added", "it was added")


def _expect_named_error(name: str, value: Any, act: Any, where: str) -> None:
    try:
        act()
    except (ValueError, TypeError) as error:
        message = str(error)
        right = isinstance(error, ValueError) or isinstance(value, str)
        expect(right, f"ValueError for {name}={value!r} in {where}", f"TypeError was raised: {message[:100]}")
        shown = repr(value[-1] if isinstance(value, tuple) and len(value) == 2 else value).strip("()',")
        complete = name in message and (shown in message or repr(value) in message or str(value) in message)
        first = repr(value[0]) if isinstance(value, tuple) else shown
        complete = complete or (name in message and first in message)
        ranged = _RANGE.search(message.replace(repr(value), ""))
        expect(
            complete and ranged,
            f"the error for {name}={value!r} in {where} to name the argument, the value and what is allowed",
            f"it says: {message[:120]}",
        )
    except Exception as error:
        raise CheckFailed(f"expected ValueError for {name}={value!r} in {where}; got {error!r}") from error
    else:
        raise CheckFailed(f"expected ValueError for {name}={value!r} in {where}; it was accepted")


def _tensor(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@check("hypers.tensor_lr", 4)
def tensor_lr(subject: Subject) -> None:
    """A 0-d tensor lr gives the same weights as a number, is read at every step and is never changed."""
    value = 2.0**-7
    lr = _tensor(value)
    params, twins = subject.params(), subject.params()
    optimizer = subject.build_or_unclaimed(params, "a tensor lr is", lr=lr)
    held = any(isinstance(group["lr"], torch.Tensor) for group in optimizer.param_groups)
    expect(
        held, "a tensor lr to stay a tensor in the group, so that fill_() reaches it", "it became a number"
    )
    other = subject.build(twins, lr=value)
    subject.run(optimizer, params, 3)
    subject.run(other, twins, 3)
    gap = displacement(subject.params(), params, twins)
    expect(gap < _ROUNDING, "a tensor lr to give the weights of the same number", f"they differ by {gap:.1e}")
    expect(lr.item() == value, "the caller's lr tensor to stay as it was", f"it became {lr.item()}")
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(0.5 * value)
        elif group["lr"] == value:
            group["lr"] = 0.5 * value
    for group in other.param_groups:
        if group["lr"] == value:
            group["lr"] = 0.5 * value
    subject.run(optimizer, params, 3, start=3)
    subject.run(other, twins, 3, start=3)
    gap = displacement(subject.params(), params, twins)
    expect(gap < _ROUNDING, "fill_() on the group's lr tensor to act at the next step", f"off by {gap:.1e}")


@check("hypers.tensor_others", 4, strict=True)
def tensor_others(subject: Subject) -> None:
    """Tensor betas, momentum and weight_decay give the same weights as numbers."""
    tried = False
    for name, number in (("betas", (0.875, 0.75)), ("momentum", 0.75), ("weight_decay", 0.125)):
        if not subject.takes(name, number) or not subject.is_number(name):
            continue
        tried = True
        value = tuple(_tensor(beta) for beta in number) if isinstance(number, tuple) else _tensor(number)
        params = subject.params()
        try:
            optimizer = subject.build(params, **{name: value})
        except REFUSALS as error:
            raise NotClaimed(f"a tensor {name} is refused: {error}") from error
        end = subject.run(optimizer, params, 4)
        expected = subject.trajectory(subject.params(), 4, **{name: number})
        gap = displacement(subject.params(), end, expected)
        expect(
            gap < _ROUNDING, f"a tensor {name} to give the weights of the same numbers", f"off by {gap:.1e}"
        )
    need(tried, "the constructor has no betas, momentum or weight_decay")


@check("hypers.kept_by_group", 3)
def kept_by_group(subject: Subject) -> None:
    """A step does not change the hyperparameters in the groups."""
    params = subject.params()
    optimizer = subject.build(params)
    before = [
        {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ]
    subject.run(optimizer, params, 3)
    after = [
        {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ]
    for old, new in zip(before, after, strict=True):
        changed = [key for key in old if key in CONVENTIONAL and not same_bits(old[key], new.get(key))]
        expect(not changed, "hyperparameters to be the user's alone", f"step() changed {changed}")


@check("hypers.signature", 3, strict=True)
def signature(subject: Subject) -> None:
    """Hyperparameters have conventional names: an lr, and no aliases of weight_decay, betas or eps."""
    names = set(subject.signature.parameters)
    expect(subject.takes("lr", 0.1), "an argument 'lr'", f"the arguments are {sorted(names)}")
    aliases = {"learning_rate", "wd", "beta1", "beta2", "epsilon", "mom"} & names
    expect(not aliases, "conventional argument names", f"found {sorted(aliases)}")
    first = list(inspect.signature(subject.cls.__init__).parameters)[1]
    expect(first == "params", "the first argument to be named 'params'", f"it is {first!r}")


_ROUNDING = 1e-4
"""Relative to the distance travelled: 0-d tensors may round a product once more than numbers do."""
