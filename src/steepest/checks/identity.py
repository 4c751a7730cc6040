"""Clause 10: other libraries replace tensors, parameters and numbers; the optimizer must follow."""

from __future__ import annotations

from typing import Any

import torch

from steepest.checks.registry import check, expect
from steepest.checks.subject import (
    Subject,
    displacement,
    find_group,
    need,
    same_bits,
    set_everywhere,
    snapshot,
)


@check("identity.param_data_replaced", 10)
def param_data_replaced(subject: Subject) -> None:
    """After p.data = new_tensor the new tensor is trained, as Accelerate and FSDP need."""
    params, twins = subject.params(), subject.params()
    optimizer, other = subject.build(params), subject.build(twins)
    subject.run(optimizer, params, 3)
    subject.run(other, twins, 3)
    old = []
    for param in params:
        old.append(param.data)
        param.data = param.data.clone()
    before = snapshot(old)
    end = subject.run(optimizer, params, 3, start=3)
    expected = subject.run(other, twins, 3, start=3)
    hint = "keep no reference to param.data or to views of it"
    expect(
        same_bits(before, snapshot(old)), "the replaced storage to be left alone", "it was written to", hint
    )
    expect(
        same_bits(end, expected), "the new storage to be trained like the old one", "the weights differ", hint
    )


@check("identity.param_swapped_in_group", 10)
def param_swapped_in_group(subject: Subject) -> None:
    """A parameter exchanged in group["params"] is trained from then on, the old one is not."""
    for new_list in (False, True):
        params, twins = subject.params(), subject.params()
        optimizer, other = subject.build(params), subject.build(twins)
        subject.run(optimizer, params, 3)
        subject.run(other, twins, 3)
        new = subject.twin(params)
        for old, fresh in zip(params, new, strict=True):
            group = find_group(optimizer, old)
            exchanged = [fresh if param is old else param for param in group["params"]]
            if new_list:
                group["params"] = exchanged
            else:
                group["params"][:] = exchanged
            if old in optimizer.state:
                optimizer.state[fresh] = optimizer.state.pop(old)
            old.grad = None
        before = snapshot(params)
        end = subject.run(optimizer, new, 3, start=3)
        how = "a new list in group['params']" if new_list else "an entry of group['params'] exchanged"
        hint = "walk self.param_groups in step; cache no list of parameters"
        expect(same_bits(before, snapshot(params)), f"{how}: old parameters left alone", "they moved", hint)
        expected = subject.run(other, twins, 3, start=3)
        expect(same_bits(end, expected), f"{how}: new parameters trained", "their weights differ", hint)


@check("identity.hypers_read_at_step", 10)
def hypers_read_at_step(subject: Subject) -> None:
    """A hyperparameter changed in the group acts from the next steps on."""
    probe = subject.build(subject.params())
    changes: dict[str, Any] = {}
    for group in probe.param_groups:
        changes["lr"] = 0.25 * float(group["lr"])
        if "weight_decay" in group:
            changes["weight_decay"] = 0.5
        if group.get("momentum"):
            changes["momentum"] = 0.5 * float(group["momentum"])
        if group.get("betas") and group["betas"][0]:
            changes["betas"] = (0.5 * float(group["betas"][0]), *group["betas"][1:])
    for name, value in changes.items():
        params, twins = subject.params(), subject.params()
        optimizer, other = subject.build(params), subject.build(twins)
        subject.run(optimizer, params, 3)
        subject.run(other, twins, 3)
        set_everywhere(optimizer, name, value)
        end = subject.run(optimizer, params, 3, start=3)
        expected = subject.run(other, twins, 3, start=3)
        expect(
            not same_bits(end, expected),
            f"group[{name!r}] = {value} to change the following steps",
            "the weights are as if it had not been set",
            f"read {name} from the group in step, not from the constructor's argument or self.defaults",
        )


@check("identity.groups_after_load", 10)
def groups_after_load(subject: Subject) -> None:
    """Hyperparameters set after load_state_dict act, though it replaces the group dictionaries."""
    params, twins = subject.params(), subject.params()
    optimizer, other = subject.build(params), subject.build(twins)
    subject.run(optimizer, params, 2)
    subject.run(other, twins, 2)
    optimizer.load_state_dict(optimizer.state_dict())
    set_everywhere(optimizer, "lr", 0.25 * float(optimizer.param_groups[0]["lr"]))
    end = subject.run(optimizer, params, 3, start=2)
    expected = subject.run(other, twins, 3, start=2)
    expect(
        not same_bits(end, expected),
        "an lr set after load_state_dict to act",
        "the weights are as if it had not been set",
        "keep no reference to a group dictionary between steps",
    )


@check("identity.one_parameter_per_optimizer", 10)
def one_parameter_per_optimizer(subject: Subject) -> None:
    """One optimizer per parameter, stepped in a backward hook, equals one optimizer for all."""
    need(not subject.closure_required, "step needs a closure")
    params, twins = subject.params(), subject.params()
    optimizers = {id(param): subject.build([param]) for param in params}

    def after_backward(param: torch.Tensor) -> None:
        optimizers[id(param)].step()
        param.grad = None

    handles = [param.register_post_accumulate_grad_hook(after_backward) for param in params]
    joint = subject.build(twins)
    for t in range(5):
        for group_of in (params, twins):
            gradients = [subject.gradient(t, index, param) for index, param in enumerate(group_of)]
            loss = sum((param * gradient).sum() for param, gradient in zip(group_of, gradients, strict=True))
            torch.as_tensor(loss).backward()
        joint.step()
        joint.zero_grad()
    for handle in handles:
        handle.remove()
    gap = displacement(subject.params(), params, twins)
    expect(
        gap < 2e-2,
        "the weights of one optimizer for all parameters",
        f"they differ by {gap:.1e} of the distance travelled",
        "nothing a step uses may be shared between parameters through the instance",
    )
