"""Hybrids: which parameter gets which rule, in every form parameters can be given."""

import pytest
import torch
from torch.nn import Parameter
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR

from steepest import ANDI, EMA, AdamW, Diagonal, HeavyBall, Max, MuAdam, Muon, Spectral, Steepest, UnitLMO
from steepest.hypers import resolve
from toys import close, copies, equal, parameters, same, snapshot, train

SHAPES = [(6, 5), (5,), (4, 3, 2, 2), ()]
MATRICES, OTHERS = [0, 2], [1, 3]
AUX = {"lr": 3e-3, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.05}


def shapes(optimizer) -> list[tuple[str, list[tuple[int, ...]]]]:
    return [(group["rule"], [tuple(p.shape) for p in group["params"]]) for group in optimizer.param_groups]


SPLIT = [("matrix", [(6, 5), (4, 3, 2, 2)]), ("aux", [(5,), ()])]


@pytest.mark.parametrize(
    "given",
    [
        lambda ps: ps,
        lambda ps: iter(ps),
        lambda ps: [(f"p{i}", p) for i, p in enumerate(ps)],
        lambda ps: [{"params": ps}],
        lambda ps: [{"params": (p for p in ps)}],
        lambda ps: iter([{"params": [(f"p{i}", p) for i, p in enumerate(ps)]}]),
    ],
    ids=["list", "iterator", "named", "group", "generator in a group", "iterator of named groups"],
)
def test_every_form_is_split_alike(given):
    optimizer = Muon(given(parameters(SHAPES)), lr=0.1, weight_decay=0.3, aux=AUX)
    assert shapes(optimizer) == SPLIT
    matrix, aux = optimizer.param_groups
    assert (matrix["lr"], matrix["weight_decay"], matrix["momentum"]) == (0.1, 0.3, 0.95)
    assert {key: aux[key] for key in AUX} == AUX
    assert not {"momentum", "nesterov", "scale", "orthogonalizer", "steps"} & set(aux)
    if "param_names" in matrix:
        assert [matrix["param_names"], aux["param_names"]] == [["p0", "p2"], ["p1", "p3"]]


def test_one_tensor_and_one_kind():
    [matrix] = parameters([(3, 2)])
    assert shapes(Muon([{"params": matrix}])) == [("matrix", [(3, 2)])]
    assert shapes(Muon([{"params": []}])) == [("matrix", [])]
    assert shapes(Muon(parameters([(3,)]))) == [("aux", [(3,)])]


def test_halves_are_muon_and_adamw():
    """One hybrid is, bit for bit, two optimizers side by side."""
    together, apart = parameters(SHAPES), parameters(SHAPES)
    train(Muon(together, lr=0.1, aux=AUX), together, range(4))
    muon = Muon([apart[i] for i in MATRICES], lr=0.1)
    adamw = AdamW([apart[i] for i in OTHERS], **AUX)
    for seed in range(4):
        train(muon, apart, [seed])
        adamw.step()
    assert equal(copies(together), copies(apart))


def test_what_a_group_says_reaches_the_half_it_is_meant_for():
    first, head, last = parameters(SHAPES), parameters([(7, 3)]), parameters([(3, 3), (3,)])
    optimizer = Muon(
        [
            {"params": first, "lr": 0.5, "momentum": 0.7, "weight_decay": 0.2, "tag": "first"},
            {"params": head, "rule": "aux", "lr": 0.25},
            {"params": last, "betas": (0.5, 0.6), "maximize": True},
        ],
        aux=AUX,
    )
    groups = optimizer.param_groups
    assert shapes(optimizer) == [
        *SPLIT,
        ("aux", [(7, 3)]),
        ("matrix", [(3, 3)]),
        ("aux", [(3,)]),
    ]
    assert [g["lr"] for g in groups] == [0.5, 3e-3, 0.25, 0.02, 3e-3]
    assert [g["weight_decay"] for g in groups] == [0.2, 0.2, 0.05, 0.0, 0.05]
    assert [g["maximize"] for g in groups] == [False, False, False, True, True]
    assert [g.get("tag") for g in groups] == ["first", "first", None, None, None]
    assert groups[4]["betas"] == (0.5, 0.6)
    # betas are the auxiliary rule's: they do not change Muon's momentum
    assert resolve(groups[3], ["momentum"])["momentum"] == 0.95


def test_a_composition_sends_only_what_its_norm_cannot_take_to_adamw():
    def rules(norm):
        return shapes(Steepest(parameters(SHAPES), 0.1, norm=norm))

    assert rules(Spectral()) == SPLIT
    assert rules(Max()) == [("matrix", [(6, 5), (5,), (4, 3, 2, 2), ()])]
    vector, expected = parameters([(5,)]), parameters([(5,)])
    train(Steepest(vector, 0.1), vector, range(3))
    train(torch.optim.SGD(expected, 0.1), expected, range(3))
    assert close(copies(vector), copies(expected), 1e-15)
    marked = Steepest([{"params": parameters([(6, 5)]), "rule": "aux"}], 0.1)
    assert shapes(marked) == [("aux", [(6, 5)])]


def test_groups_of_a_composition_name_their_own_parts():
    params = parameters([(4, 3), (3,), (4, 3)])
    optimizer = Steepest(
        [
            {"params": params[:2], "preconditioner": Diagonal(beta=0.7, eps=1e-3), "step": UnitLMO()},
            {"params": params[2:], "momentum": HeavyBall(0.6), "norm": Max()},
        ],
        lr=0.1,
        norm=Spectral(),
        momentum=EMA(0.9),
    )
    matrix, aux, second = optimizer.param_groups
    assert matrix["recipe"].preconditioner == Diagonal(beta=0.7, eps=1e-3)
    assert matrix["recipe"].norm == Spectral()
    assert (matrix["momentum"], matrix["beta2"], matrix["eps"]) == (0.9, 0.7, 1e-3)
    assert (aux["eps"], "beta2" in aux, "recipe" in aux) == (1e-8, False, False)
    assert second["recipe"].norm == Max()
    assert second["momentum"] == 0.6
    train(optimizer, params, range(2))
    number = Steepest([{"params": parameters([(4, 3)]), "momentum": 0.3}], 0.1, momentum=EMA(0.9))
    assert number.param_groups[0]["momentum"] == 0.3
    for key, value in {"norm": "spectral", "step": None, "momentum": "ema"}.items():
        with pytest.raises(TypeError, match=f"{key} must be a .* got {value!r}"):
            Steepest([{"params": parameters([(4, 3)]), key: value}], 0.1)


def test_groups_added_while_training():
    params, late = parameters(SHAPES), parameters([(6, 5), (5,)], seed=1)
    optimizer = Muon(params, lr=0.1, aux=AUX)
    train(optimizer, params, range(2))
    given = {"params": list(late), "lr": 0.3}
    optimizer.add_param_group(given)
    assert given == {"params": late, "lr": 0.3}
    assert shapes(optimizer) == [*SPLIT, ("matrix", [(6, 5)]), ("aux", [(5,)])]
    alone = parameters([(6, 5), (5,)], seed=1)
    train(optimizer, late, [7, 8])
    train(Muon(alone, lr=0.3, aux=AUX), alone, [7, 8])
    assert equal(copies(late), copies(alone))


@pytest.mark.parametrize(
    ("group", "error", "message"),
    [
        ({"lr": -1.0}, ValueError, r"lr must be in \[0, inf\), got -1\.0"),
        ({"momentun": 0.5}, TypeError, "unknown key 'momentun'; did you mean 'momentum'"),
        ({"beta": (0.1, 0.2)}, TypeError, "unknown key 'beta'; did you mean 'betas'"),
        ({"scale": "huge"}, ValueError, "scale must be one of .* got 'huge'"),
        ({"rule": "Aux"}, ValueError, "rule must be one of 'matrix', 'aux', got 'Aux'"),
        ({"rule": "matrix"}, ValueError, r"rule='matrix' needs .* got one of shape \(5,\)"),
        ({"fused": True}, ValueError, r"fused=True, but parameter 0 of shape \(6, 5\) .* no fused path"),
        ({"batch_dims": -1}, ValueError, "batch_dims must be an integer >= 0, got -1"),
        ({"nonfinite": "ignore"}, ValueError, "nonfinite must be one of None, 'raise', .* got 'ignore'"),
        ({"params": [1.0]}, TypeError, "params must hold tensors or .name, tensor. pairs, got float"),
        ({"params": {torch.ones(2)}}, TypeError, "ordered collections, got a set"),
    ],
)
def test_a_refused_group_leaves_the_optimizer_as_it_was(group, error, message):
    params = parameters(SHAPES)
    optimizer = Muon(params)
    train(optimizer, params, range(2))
    before = snapshot(optimizer)
    with pytest.raises(error, match=message):
        optimizer.add_param_group({"params": parameters([(6, 5), (5,)]), **group})
    assert same(before, snapshot(optimizer))
    train(optimizer, params, [2])


def test_other_refused_groups():
    params = parameters(SHAPES)
    optimizer = Muon(params)
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match="more than one parameter group"):  # the matrix half is fine
        optimizer.add_param_group({"params": [*parameters([(2, 2)]), params[1]]})
    with pytest.raises(TypeError, match="param_group must be a dict, got 3"):
        optimizer.add_param_group(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must hold 'params', got 'lr'"):
        optimizer.add_param_group({"lr": 1.0})
    assert same(before, snapshot(optimizer))
    with pytest.raises(ValueError, match="rule='aux': ANDI has one rule"):
        ANDI([{"params": params, "rule": "aux"}])
    with pytest.raises(ValueError, match=r"batch_dims must be at most .* got 2 for parameter 1 of shape"):
        ANDI([{"params": params, "batch_dims": 2}])


@pytest.mark.parametrize("make", [Muon, MuAdam])
def test_schedules_scale_both_halves(make):
    optimizer = make(parameters(SHAPES), lr=0.1, aux={"lr": 0.004})
    schedule = LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    for _ in range(2):
        optimizer.step()
        schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.025, 0.001]
    optimizer = make(parameters(SHAPES), lr=0.1, aux={"lr": 0.004})
    cosine = CosineAnnealingLR(optimizer, 2)
    optimizer.step()
    cosine.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.002])


@pytest.mark.parametrize("make", [Muon, MuAdam, AdamW, ANDI])
def test_one_cycle_moves_momentum_too(make):
    params = parameters(SHAPES)
    optimizer = make(params)
    lrs = [0.1, 0.01][: len(optimizer.param_groups)]
    schedule = OneCycleLR(optimizer, lrs, total_steps=10)
    for seed in range(4):
        train(optimizer, params, [seed])
        schedule.step()
    first = optimizer.param_groups[0]
    assert resolve(first, ["momentum", "beta2"])["momentum"] != optimizer.defaults.get("momentum", 0.9)
    again = make([dict(group) for group in optimizer.param_groups])  # the keys schedulers add are welcome
    assert [g["lr"] for g in again.param_groups] == [g["lr"] for g in optimizer.param_groups]


@pytest.mark.parametrize("make", [Muon, ANDI])
@pytest.mark.parametrize("batch", [(3,), (2, 2)])
def test_stacks_are_their_slices(make, batch):
    """``batch_dims`` makes one tensor of many matrices, each stepped as if it were alone."""
    stack = Parameter(parameters([(*batch, 20, 18)])[0].detach())
    slices = [Parameter(one.detach().clone()) for one in stack.reshape(-1, 20, 18)]
    optimizer = make([{"params": [stack], "batch_dims": len(batch)}])
    apart = make(slices)
    for seed in range(3):
        train(optimizer, [stack], [seed])
        assert stack.grad is not None
        for one, grad in zip(slices, stack.grad.reshape(-1, 20, 18), strict=True):
            one.grad = grad.clone()
        apart.step()
    assert close(list(stack.detach().reshape(-1, 20, 18)), copies(slices), 1e-13)
    assert all(v.shape == stack.shape for v in optimizer.state[stack].values())


def test_batch_dims_reach_vectors_in_stacks():
    """A stack of biases is no stack of matrices."""
    optimizer = Muon([{"params": parameters([(3, 5, 4), (3, 4)]), "batch_dims": 1}])
    assert shapes(optimizer) == [("matrix", [(3, 5, 4)]), ("aux", [(3, 4)])]
