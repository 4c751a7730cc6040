"""Clause 1: a class is a ``torch.optim.Optimizer`` in every way its users build and extend one."""

from __future__ import annotations

from steepest.checks.registry import NotClaimed, check, expect
from steepest.checks.subject import REFUSALS, Subject, displacement, find_group, same_bits, snapshot


@check("step.runs", 1)
def step_runs(subject: Subject) -> None:
    """A list of dense float32 parameters can be stepped, and stays finite."""
    params = subject.params()
    start = snapshot(params)
    end = subject.run(subject.build(params), params, 3)
    finite = all(bool(value.isfinite().all()) for value in end)
    expect(finite, "finite weights after 3 ordinary steps", "some are NaN or infinite")
    expect(not same_bits(start, end), "3 ordinary steps to move the weights", "no weight moved")


@check("param_groups.list", 1)
def every_parameter_in_one_group(subject: Subject) -> None:
    """Every parameter passed is in exactly one group."""
    params = subject.params()
    optimizer = subject.build(params)
    for param in params:
        find_group(optimizer, param)
    held = sum(len(group["params"]) for group in optimizer.param_groups)
    expect(held == len(params), f"{len(params)} parameters in the groups", f"there are {held}")


@check("param_groups.generator", 1)
def generator(subject: Subject) -> None:
    """A generator of parameters, as model.parameters() gives, is accepted and equals a list."""
    params, twins = subject.params(), subject.params()
    optimizer = subject.build(param for param in params)
    expected = subject.trajectory(twins)
    expect(
        same_bits(subject.run(optimizer, params, 5), expected),
        "the same weights from a generator as from a list",
        "they differ",
        "read the iterable once, with list(params), and use only that list",
    )


@check("param_groups.named_parameters", 1)
def named_parameters(subject: Subject) -> None:
    """(name, parameter) pairs are accepted, and each group keeps matching names."""
    params = subject.params()
    names = {id(param): f"layer{index}.weight" for index, param in enumerate(params)}
    optimizer = subject.build([(names[id(param)], param) for param in params])
    for group in optimizer.param_groups:
        found = group.get("param_names")
        wanted = [names[id(param)] for param in group["params"]]
        expect(
            found == wanted,
            f"group['param_names'] == {wanted}",
            f"it is {found}",
            "let Optimizer.add_param_group split the pairs, or keep names and parameters in the same order",
        )
    expect(
        same_bits(subject.run(optimizer, params, 5), subject.trajectory(subject.params())),
        "the same weights with names as without",
        "they differ",
    )


@check("param_groups.dicts", 1)
def dictionaries(subject: Subject) -> None:
    """A list of group dictionaries is accepted and equals one flat list."""
    params = subject.pair()
    groups = [{"params": params[:1]}, {"params": params[1:]}]
    optimizer = subject.build_or_unclaimed(groups, "several groups are")
    for param in params:
        find_group(optimizer, param)
    gap = displacement(subject.pair(), subject.run(optimizer, params, 5), subject.trajectory(subject.pair()))
    expect(gap < TOLERANCE, "the same weights from two groups as from a list", f"they differ by {gap:.1e}")


@check("param_groups.add", 1)
def add_before_training(subject: Subject) -> None:
    """add_param_group before the first step works."""
    _add_group(subject, before=0)


@check("param_groups.add_mid_training", 1)
def add_mid_training(subject: Subject) -> None:
    """add_param_group in the middle of training works, and the new parameters are trained."""
    _add_group(subject, before=3)


def _add_group(subject: Subject, before: int) -> None:
    old, new = subject.params(), subject.params(seed=1)
    optimizer = subject.build(old)
    reference = subject.run(subject.build(alone := subject.params()), alone, before + 4)
    subject.run(optimizer, old, before)
    try:
        optimizer.add_param_group({"params": new})
    except NotImplementedError as error:
        raise NotClaimed(f"add_param_group: {error}") from error
    for param, like in zip(new, old, strict=True):
        given = find_group(optimizer, param).keys() | {"param_names"}
        missing = sorted(find_group(optimizer, like).keys() - given)
        expect(
            not missing,
            f"the new group to get the defaults of {missing}",
            "they are absent",
            "call the base class",
        )
    start = snapshot(new)
    end = subject.run(optimizer, [*old, *new], 4, start=before)
    moved = [not same_bits(a, b) for a, b in zip(start, end[len(old) :], strict=True)]
    expect(all(moved), "every added parameter to move", f"{moved.count(False)} of {len(moved)} did not")
    gap = displacement(subject.params(), end[: len(old)], reference)
    expect(gap < TOLERANCE, "older parameters to be unaffected by the new group", f"they differ by {gap:.1e}")


@check("param_groups.empty", 1)
def empty(subject: Subject) -> None:
    """An empty parameter list is a ValueError; an empty group or an absent gradient is harmless."""
    try:
        subject.build([])
    except ValueError:
        pass
    else:
        expect(False, "ValueError for an empty parameter list", "nothing was raised", "call the base class")
    params = subject.pair()
    try:
        optimizer = subject.build([{"params": params}, {"params": []}])
    except REFUSALS as error:
        raise NotClaimed(f"an empty group is refused: {error}") from error
    start = snapshot(params)
    subject.run(optimizer, params, 2, gradient=lambda t, index, param: None)  # type: ignore[arg-type,return-value]
    expect(same_bits(start, snapshot(params)), "no change from a step without gradients", "weights moved")
    subject.run(optimizer, params, 3)
    expect(not same_bits(start, snapshot(params)), "training to go on beside an empty group", "nothing moved")


@check("param_groups.refuses_bad", 1)
def refuses_bad(subject: Subject) -> None:
    """A bare tensor, a non-tensor, and one parameter in two groups are refused."""
    for what, make, kinds in (
        ("a bare tensor instead of a list", lambda: subject.params()[0], (TypeError,)),
        ("a list of strings", lambda: ["weight"], (TypeError,)),
        ("one parameter in two groups", lambda: _shared(subject), (ValueError,)),
    ):
        names = " or ".join(kind.__name__ for kind in kinds)
        try:
            subject.build(make())
        except kinds:
            continue
        except Exception as error:
            expect(False, f"{names} for {what}", f"{type(error).__name__} was raised: {error}")
        expect(False, f"{names} for {what}", "nothing was raised", "call the base class with what was given")


def _shared(subject: Subject) -> list[dict]:
    param = subject.pair()[0]
    return [{"params": [param]}, {"params": [param]}]


@check("hooks.step", 1)
def step_hooks(subject: Subject) -> None:
    """Step pre-hooks and post-hooks fire once per step, before and after the weights move."""
    params = subject.params()
    start = snapshot(params)
    optimizer = subject.build(params)
    seen: list[tuple[str, bool]] = []

    def note(name: str):
        return lambda *_: seen.append((name, same_bits(start, snapshot(params))))

    optimizer.register_step_pre_hook(note("pre"))
    optimizer.register_step_post_hook(note("post"))
    subject.run(optimizer, params, 3)
    expect(
        [name for name, _ in seen] == ["pre", "post"] * 3,
        "pre and post hooks once for each of 3 steps",
        f"the calls were {[name for name, _ in seen]}",
        "call super().__init__ and do not replace step on the instance",
    )
    expect(seen[0][1], "weights untouched when the first pre-hook runs", "they had moved")
    expect(not seen[-1][1], "weights moved when the last post-hook runs", "they had not")


@check("zero_grad", 1)
def zero_grad(subject: Subject) -> None:
    """zero_grad() drops gradients, and zeroes them with set_to_none=False."""
    params = subject.params()
    optimizer = subject.build(params)
    for param in params:
        param.grad = param.detach().clone()
    optimizer.zero_grad(set_to_none=False)
    zeroed = all(param.grad is not None and not param.grad.any() for param in params)
    expect(zeroed, "gradients of zeros after zero_grad(set_to_none=False)", "they are not")
    optimizer.zero_grad()
    expect(all(param.grad is None for param in params), "no gradients after zero_grad()", "some are left")


@check("repr", 1)
def representation(subject: Subject) -> None:
    """repr() names the class and works before and after a step."""
    params = subject.params()
    optimizer = subject.build(params)
    before = repr(optimizer)
    subject.run(optimizer, params, 1)
    for text in (before, repr(optimizer)):
        expect(
            subject.cls.__name__ in text,
            f"repr() to contain {subject.cls.__name__!r}",
            f"it is {text[:80]!r}",
        )


TOLERANCE = 2e-2
"""Relative to the distance travelled. Methods that work in bfloat16 inside differ by up to 1e-2 when shapes
are batched differently; a wrong step differs by far more."""
