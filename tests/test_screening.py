"""What a step refuses, and that refusing changes nothing."""

import pytest
import torch
from torch.nn import Embedding, Parameter

from steepest import ANDI, AdamW, Muon
from toys import MAKERS, WHOLE_NETWORK, give_gradients, parameters, same, snapshot, train

NAN, INF = float("nan"), float("inf")


def broken_at(index: int, value: float, seed: int, params) -> None:
    give_gradients(params, seed)
    params[index].grad.view(-1)[-1] = value


@pytest.mark.parametrize("name", MAKERS)
def test_raise_names_the_parameter_and_changes_nothing(name):
    params = parameters()
    optimizer = MAKERS[name]([(f"layer{i}", p) for i, p in enumerate(params)], nonfinite="raise")
    for seed, value in enumerate((NAN, INF, -INF)):
        before = snapshot(optimizer)
        broken_at(3, value, 9, params)
        with pytest.raises(
            FloatingPointError, match=r"'layer3' of shape \(4, 3, 2, 2\).*nothing was changed"
        ):
            optimizer.step()
        assert same(before, snapshot(optimizer))
        train(optimizer, params, [seed])


def test_the_default_on_the_cpu_is_raise():
    params = parameters()
    optimizer = AdamW(params)
    broken_at(1, NAN, 0, params)
    with pytest.raises(FloatingPointError, match=r"parameter 1 of shape \(5,\)"):
        optimizer.step()


@pytest.mark.parametrize("name", MAKERS)
def test_skip_leaves_the_whole_step_out(name):
    """The trajectory is that without the bad step, counts included."""
    results = []
    bad = -1
    for seeds in ((0, 1), (0, bad, 1)):
        params = parameters()
        optimizer = MAKERS[name](params, nonfinite="skip")
        for seed in seeds:
            if seed == bad:
                broken_at(0, INF, 9, params)
            else:
                give_gradients(params, seed)
            assert optimizer.step(lambda: 3.0) == 3.0
        results.append(snapshot(optimizer))
    assert same(*results)


def test_policies_are_per_group():
    """A bad gradient under "skip" holds back the other groups; under "propagate" nobody looks."""
    good, bad = parameters([(3,), (3,)])
    for policy, moves in (("skip", False), ("propagate", True)):
        optimizer = AdamW([{"params": [good]}, {"params": [bad], "nonfinite": policy}])
        before = good.detach().clone()
        broken_at(1, NAN, 0, [good, bad])
        optimizer.step()
        assert torch.equal(good, before) != moves
    assert bad.isnan().any()


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in WHOLE_NETWORK])
def test_propagate_spreads_no_further_than_its_tensor(name):
    params = parameters()
    optimizer = MAKERS[name](params, nonfinite="propagate")
    broken_at(0, NAN, 0, params)
    optimizer.step()
    # The sign of NaN is zero: SignSGD's weight stays, its average shows what happened.
    assert any(x.isnan().any() for x in (params[0], *optimizer.state[params[0]].values()))
    assert all(p.isfinite().all() for p in params[1:])


@pytest.mark.parametrize(
    ("dtype", "entry"),
    [(torch.float32, 3e38), (torch.float64, 1e300), (torch.float16, 6e4), (torch.bfloat16, 3e38)],
)
def test_finite_entries_whose_sum_overflows_are_finite(dtype, entry):
    parameter = Parameter(torch.zeros(64, 64, dtype=dtype))
    parameter.grad = torch.full_like(parameter, entry)
    ANDI([parameter], nonfinite="raise", lr=0.0).step()
    skipped = AdamW([parameter], nonfinite="skip")
    skipped.step()
    assert skipped.state[parameter], "the step was skipped"


@pytest.mark.parametrize("name", ["ANDI", "AdamW", "Muon"])
def test_sparse_gradients(name):
    embedding = Embedding(6, 5, sparse=True)
    [other] = parameters([(6, 5)])
    optimizer = MAKERS[name]([other, embedding.weight])
    give_gradients([other], 0)
    embedding(torch.tensor([1, 2])).sum().backward()
    before = snapshot(optimizer)
    with pytest.raises(RuntimeError, match=r"sparse gradients are not supported: parameter 1 of shape"):
        optimizer.step()
    assert same(before, snapshot(optimizer))


@pytest.mark.parametrize("name", ["ANDI", "AdamW", "Muon"])
def test_complex_parameters(name):
    [first] = parameters([(6, 5)])
    wave = Parameter(torch.ones(6, 5, dtype=torch.complex64))
    optimizer = MAKERS[name]([first, wave])
    give_gradients([first], 0)
    wave.grad = torch.ones_like(wave)
    before = snapshot(optimizer)
    with pytest.raises(RuntimeError, match=r"real floating point: parameter 1 .*torch\.complex64"):
        optimizer.step()
    assert same(before, snapshot(optimizer))


def test_nothing_is_looked_at_without_gradients():
    params = parameters()
    optimizer = Muon(params)
    before = snapshot(optimizer)
    optimizer.step()
    assert same(before, snapshot(optimizer))
