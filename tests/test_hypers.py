"""Numbers in param_groups: as tensors, changed between steps, by schedulers."""

from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    ReduceLROnPlateau,
    SequentialLR,
)

from steepest import ANDI, AdamW, Muon
from steepest.hypers import reject_misspelt, validate
from steepest.spelling import refuse_unknown, suggest
from toys import MAKERS, WHOLE_NETWORK, close, copies, decay, equal, parameters, train

every = pytest.mark.parametrize("name", MAKERS)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_give_the_trajectory_of_numbers(name, dtype):
    """lr, momentum, betas and weight decay as 0-d tensors, also when they change between steps."""
    make = MAKERS[name]
    numbers, tensors = parameters(dtype=dtype), parameters(dtype=dtype)
    a, b = make(numbers), make(tensors)
    for step, lr in enumerate((2.0**-5, 2.0**-6, 0.0, 2.0**-4)):
        for one, other in zip(a.param_groups, b.param_groups, strict=True):
            values: dict[str, Any] = {"lr": lr, **decay(name, 0.125)}
            if "betas" in one:
                values["betas"] = (0.5, 0.75)
            elif "momentum" in one:
                values["momentum"] = 0.5
            one.update(values)
            for key, value in values.items():
                other[key] = (
                    tuple(map(torch.tensor, value)) if isinstance(value, tuple) else torch.tensor(value)
                )
        train(a, numbers, [step])
        train(b, tensors, [step])
    assert equal(copies(numbers), copies(tensors))


@every
def test_tensor_arguments(name):
    params, expected = parameters(), parameters()
    lr = torch.tensor(2.0**-6)
    optimizer = MAKERS[name](params, lr=lr)
    assert optimizer.param_groups[0]["lr"] is lr
    train(optimizer, params, range(2))
    train(MAKERS[name](expected, lr=2.0**-6), expected, range(2))
    assert equal(copies(params), copies(expected))


@every
def test_schedules_are_the_lr_written_by_hand(name):
    scheduled, by_hand = parameters(), parameters()
    a, b = MAKERS[name](scheduled), MAKERS[name](by_hand)
    initial = [group["lr"] for group in b.param_groups]
    schedule = ExponentialLR(a, 0.5)
    for step in range(3):
        train(a, scheduled, [step])
        schedule.step()
        for group, lr in zip(b.param_groups, initial, strict=True):
            group["lr"] = lr * 0.5**step
        train(b, by_hand, [step])
    assert close(copies(scheduled), copies(by_hand), 1e-14)


@pytest.mark.parametrize("name", ["ANDI", "AdamW", "Muon"])
@pytest.mark.parametrize("tensor", [False, True])
def test_other_schedulers_attach(name, tensor):
    params = parameters()
    optimizer = MAKERS[name](params, lr=torch.tensor(0.1) if tensor else 0.1)
    schedule = SequentialLR(
        optimizer, [CosineAnnealingWarmRestarts(optimizer, 3), ExponentialLR(optimizer, 0.5)], [2]
    )
    plateau = ReduceLROnPlateau(optimizer, patience=0)
    for step in range(4):
        train(optimizer, params, [step])
        schedule.step()
        plateau.step(float(step))
    assert all(0 < float(group["lr"]) < 0.1 for group in optimizer.param_groups)
    assert isinstance(optimizer.param_groups[0]["lr"], torch.Tensor) == tensor


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in WHOLE_NETWORK])
def test_groups_override_the_defaults(name):
    """Two groups with their own lr and decay are two optimizers."""
    together, apart = parameters([(6, 5), (6, 5)]), parameters([(6, 5), (6, 5)])
    make = MAKERS[name]
    own = [{"lr": 0.03, **decay(name, 0.2)}, {"lr": 0.007}]
    groups = [{"params": [p], **numbers} for p, numbers in zip(together, own, strict=True)]
    optimizer = make(groups)
    alone = [make([p], **numbers) for p, numbers in zip(apart, own, strict=True)]
    for seed in range(3):
        train(optimizer, together, [seed])
        for p, q in zip(together, apart, strict=True):
            assert p.grad is not None
            q.grad = p.grad.clone()
        for single in alone:
            single.step()
    assert equal(copies(together), copies(apart))


@every
def test_unknown_arguments_have_a_suggest(name):
    with pytest.raises(TypeError, match="unknown argument 'maximise'; did you mean 'maximize'"):
        MAKERS[name](parameters(), maximise=True)
    with pytest.raises(TypeError, match="unknown key 'maximise'; did you mean 'maximize'"):
        MAKERS[name]([{"params": parameters(), "maximise": True}])
    with pytest.raises(TypeError, match=r"unknown argument 'zzz'\. Known: lr"):
        MAKERS[name](parameters(), zzz=0.1)


@pytest.mark.parametrize(("make", "key"), [(ANDI, "betas"), (AdamW, "momentum"), (Muon, "rho")])
def test_hyperparameters_of_other_methods_are_refused_in_groups(make, key):
    optimizer = make(parameters(), lr=0.1)
    count = len(optimizer.param_groups)
    with pytest.raises(TypeError, match=f"got '{key}', which is not used here; known: lr"):
        optimizer.add_param_group({"params": parameters(), key: 0.5 if key != "betas" else (0.9, 0.99)})
    assert len(optimizer.param_groups) == count
    optimizer.add_param_group({"params": parameters(), "initial_lr": 0.1, "weight_decay": 0.0})


def test_suggestions():
    known = ["lr", "betas", "weight_decay", "momentum"]
    assert suggest("wd", known) == "; did you mean 'weight_decay'?"
    assert suggest("learning_rate", known) == "; did you mean 'lr'?"
    assert suggest("momentun", known) == "; did you mean 'momentum'?"
    assert suggest("zzz", known) == ""
    refuse_unknown("f", ["lr"], known)
    reject_misspelt("group", ["name", "layer_id", "max_momentum", "initial_lr"], known)


@pytest.mark.parametrize("value", [0, 1, 0.5, torch.tensor(0.5), torch.tensor([1]), torch.tensor(0.5).half()])
def test_numbers_in_every_form(value):
    validate({"lr": value, "weight_decay": value, "eps": value, "a key of the user's": object()})
