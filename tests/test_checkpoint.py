"""Saving, loading, refusing."""

import io

import pytest
import torch

from steepest import EMA, AdamW, Diagonal, Max, MuAdam, Muon, SignSGD, Steepest
from toys import MAKERS, copies, equal, parameters, same, snapshot, train

SHAPES = [(6, 5), (5,), (6, 5), (4, 3, 2, 2)]


def through_a_file(state_dict) -> dict:
    """What a weights-only load gives back."""
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", MAKERS)
def test_resuming_is_bitwise(name, dtype):
    whole, first = parameters(dtype=dtype), parameters(dtype=dtype)
    straight, optimizer = MAKERS[name](whole), MAKERS[name](first)
    train(straight, whole, range(5))
    train(optimizer, first, range(2))
    saved = through_a_file(optimizer.state_dict())
    second = parameters(dtype=dtype, seed=9)
    for mine, theirs in zip(second, first, strict=True):
        mine.data.copy_(theirs.data)
    resumed = MAKERS[name](second, lr=0.5)  # the saved lr wins
    resumed.load_state_dict(saved)
    assert same(snapshot(resumed), snapshot(optimizer))
    train(resumed, second, range(2, 5))
    assert same(snapshot(resumed), snapshot(straight))
    assert equal(copies(second), copies(whole))


@pytest.mark.parametrize("name", MAKERS)
def test_state_is_plain(name):
    """Plain numbers, strings and tensors, keyed by nothing but parameters; saved before a step too."""
    params = parameters()
    optimizer = MAKERS[name](params)
    fresh = MAKERS[name](parameters())
    fresh.load_state_dict(through_a_file(optimizer.state_dict()))
    assert same(snapshot(fresh), snapshot(optimizer))
    train(optimizer, params, range(2))
    assert set(optimizer.state) <= set(params)
    saved = optimizer.state_dict()
    assert set(saved) == {"state", "param_groups"}
    assert all(type(v) is torch.Tensor for state in saved["state"].values() for v in state.values())
    for key, value in ((k, v) for group in saved["param_groups"] for k, v in group.items()):
        assert isinstance(value, int | float | str | bool | tuple | list | None), key


@pytest.mark.parametrize("name", MAKERS)
def test_loading_takes_copies(name):
    params, others = parameters(), parameters()
    optimizer, other = MAKERS[name](params), MAKERS[name](others)
    train(optimizer, params, range(2))
    before = snapshot(optimizer)
    other.load_state_dict(optimizer.state_dict())
    train(other, others, range(2))
    assert same(before, snapshot(optimizer))


@pytest.mark.parametrize("settings", [{}, {"foreach": True}, {"fused": True}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_checkpoints_of_torch_adamw_load(settings, dtype):
    theirs, ours = parameters(dtype=dtype), parameters(dtype=dtype)
    reference = torch.optim.AdamW(theirs, lr=0.01, weight_decay=0.1, **settings)
    train(reference, theirs, range(3))
    optimizer = AdamW(ours, fused=False)
    optimizer.load_state_dict(through_a_file(reference.state_dict()))
    with torch.no_grad():
        for p, q in zip(ours, theirs, strict=True):
            p.copy_(q)
    train(optimizer, ours, range(3, 6))
    train(reference, theirs, range(3, 6))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(copies(ours), copies(theirs), rtol=tolerance, atol=tolerance)


def test_low_precision_state_of_others_is_widened():
    """torch.optim keeps bfloat16 state for bfloat16 parameters; integers for steps were once its habit."""
    theirs, ours = parameters(dtype=torch.bfloat16), parameters(dtype=torch.bfloat16)
    reference = torch.optim.AdamW(theirs)
    train(reference, theirs, range(2))
    saved = reference.state_dict()
    saved["state"][0]["step"] = 2
    optimizer = AdamW(ours)
    optimizer.load_state_dict(saved)
    state = optimizer.state[ours[0]]
    assert {k: v.dtype for k, v in state.items()} == dict.fromkeys(
        ("step", "exp_avg", "exp_avg_sq"), torch.float32
    )
    assert state["step"].item() == 2
    assert torch.equal(state["exp_avg"], reference.state[theirs[0]]["exp_avg"].float())


def trained(make, shapes=SHAPES, **kwargs):
    params = parameters(shapes)
    optimizer = make(params, **kwargs)
    train(optimizer, params, range(2))
    return optimizer


COMPOSED = {"lr": 0.1, "momentum": EMA()}


@pytest.mark.parametrize(
    ("saved", "into", "message"),
    [
        (
            lambda: trained(torch.optim.AdamW, amsgrad=True),
            lambda: trained(AdamW),
            r"parameter 0 of shape \(6, 5\) holds .*'max_exp_avg_sq'.* this optimizer keeps \['exp_avg'",
        ),
        (
            lambda: trained(AdamW, [(6, 5)]),
            lambda: trained(Muon, [(6, 5)]),
            r"holds \['exp_avg', 'exp_avg_sq', 'step'\], this optimizer keeps \['momentum_buffer'\]",
        ),
        (
            lambda: trained(MuAdam, [(6, 5)]),
            lambda: trained(AdamW, [(6, 7)]),
            r"saved 'exp_avg.*' of parameter 0 of shape \(6, 7\) has shape \(6, 5\), expected \(6, 7\)",
        ),
        (lambda: trained(Muon), lambda: trained(SignSGD), "different number of parameter groups"),
        (lambda: trained(SignSGD, SHAPES[:1]), lambda: trained(SignSGD), "doesn't match the size"),
        (
            lambda: trained(Muon, [(6, 5)]),
            lambda: trained(Muon, [(5,)]),
            "group 0 was saved with rule 'matrix', this optimizer has 'aux'",
        ),
        (
            lambda: trained(Steepest, **COMPOSED),
            lambda: trained(Steepest, **COMPOSED, norm=Max()),
            r"group 0 was saved with recipe Rule\(norm=Frobenius.*this optimizer has Rule\(norm=Max",
        ),
        (
            lambda: trained(Steepest, **COMPOSED),
            lambda: trained(Steepest, **COMPOSED, preconditioner=Diagonal()),
            "group 0 was saved with recipe",
        ),
    ],
)
def test_wrong_checkpoints_are_refused_and_change_nothing(saved, into, message):
    checkpoint, optimizer = saved().state_dict(), into()
    before = snapshot(optimizer)
    for _ in range(2):  # refusing leaves no hooks behind either
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(checkpoint)
        assert same(before, snapshot(optimizer))
    optimizer.load_state_dict(optimizer.state_dict())
    assert same(before, snapshot(optimizer))


def test_messages_use_the_names_of_parameters():
    optimizer = AdamW([("encoder.weight", parameters([(6, 7)])[0])])
    with pytest.raises(ValueError, match=r"of parameter 'encoder\.weight' of shape \(6, 7\) has shape"):
        optimizer.load_state_dict(trained(AdamW, [(6, 5)]).state_dict())


def test_hooks_of_the_user_see_the_finished_load():
    optimizer, source = trained(AdamW), trained(AdamW, lr=0.5)
    source_dict = source.state_dict()
    seen = []

    def halve_lr(_, state_dict):
        groups = [{**group, "lr": group["lr"] / 2} for group in state_dict["param_groups"]]
        return {**state_dict, "param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(halve_lr)
    optimizer.register_load_state_dict_post_hook(
        lambda loaded: seen.append((loaded.param_groups[0]["lr"], loaded.param_groups[0]["nonfinite"]))
    )
    optimizer.load_state_dict(source_dict)
    assert seen == [(0.25, None)]
