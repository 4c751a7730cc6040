"""Native kernels against the reference path: every plan, dtype and class of shapes."""

import itertools

import pytest
import torch
from torch.nn import Parameter

from steepest import EMA, Diagonal, EnergyFloor, Equilibration, HeavyBall, Max, Steepest, UnitLMO
from steepest.groups import Member
from steepest.kernels import native, native_kernel
from steepest.kernels.native.kernel import NativeKernel
from steepest.kernels.native.library import Unavailable, load
from steepest.kernels.plans import Averaging, Elementwise, Equilibrated, Normalized, SquareStatistic
from steepest.momentum import NoMomentum
from steepest.rule import Rule
from steepest.stepping import take_step
from steepest.steps import DualScaled
from toys import copies

pytestmark = pytest.mark.skipif(isinstance(load(), Unavailable), reason="no native kernels here")

SHAPES = [(1, 1), (1, 37), (37, 1), (33, 65), (5, 700), (700, 5), (3, 1025), (20, 3, 3, 3), (7,), ()]
"""No multiples of a vector, rows longer and shorter than a block, one entry, tensors of other dimensions."""

MOMENTA = {
    "none": NoMomentum(),
    "sum": HeavyBall(),
    "sum ahead": HeavyBall(nesterov=True),
    "sum from first": HeavyBall(start="gradient"),
    "mean": EMA(),
    "mean ahead": EMA(nesterov=True),
    "mean corrected": EMA(bias_correction=True),
    "mean corrected ahead": EMA(nesterov=True, bias_correction=True),
    "short mean": EMA(0.3, nesterov=True),
}
SQUARES = {
    f"{power:.2g} {placement} {kind}": Diagonal(
        power, None if kind == "sum" else 0.97, 1e-3, placement, kind == "corrected"
    )
    for power in (0.5, 1.0, 1 / 3)
    for placement in ("outside", "uncorrected", "inside", "floor")
    for kind in ("sum", "plain", "corrected")
}
AXES = {
    "both": Equilibration(0),
    "rows": Equilibration(0, axis="rows"),
    "columns": Equilibration(0, axis="columns"),
    "lateral": Equilibration(0, mixing="lateral", shift=9),
}


def after(momentum):
    """The same momentum behind the oracle."""
    return type(momentum)(**{**vars(momentum), "where": "after"})


RULES = {
    **{f"average: {name}": Rule(momentum=m, step=DualScaled()) for name, m in MOMENTA.items()},
    **{f"sign: {name}": Rule(norm=Max(), momentum=m) for name, m in MOMENTA.items()},
    "sign scaled": Rule(norm=Max(), step=UnitLMO("match_rms_adamw")),
    **{
        f"square: {name}": Rule(preconditioner=s, momentum=MOMENTA["mean corrected"], step=DualScaled())
        for name, s in SQUARES.items()
    },
    "square alone": Rule(preconditioner=Diagonal(0.5, None), step=DualScaled()),
    **{
        f"sign of square: {power:.2g}": Rule(
            norm=Max(), preconditioner=Diagonal(power, 0.9, 1e-3), momentum=MOMENTA["sum ahead"]
        )
        for power in (0.5, 1.0, 1 / 3)
    },
    **{f"length: {name}": Rule(momentum=m) for name, m in MOMENTA.items()},
    **{
        f"rows and columns: {axis}, {name}": Rule(
            preconditioner=AXES[axis], momentum=after(MOMENTA[name]), step=EnergyFloor()
        )
        for axis, name in [
            *itertools.product(AXES, ["sum ahead"]),
            *itertools.product(["both"], [name for name in MOMENTA if name != "none"]),
        ]
    },
    "rows and columns, no average": Rule(preconditioner=Equilibration(0), step=EnergyFloor()),
    **{
        f"energy: {name}": Rule(momentum=after(m), step=EnergyFloor())
        for name, m in MOMENTA.items()
        if name != "none"
    },
    "energy, no average": Rule(step=EnergyFloor()),
}
"""Every kind of plan, with every choice that its kernel distinguishes."""
ONE_OF_EACH = {
    name: RULES[name]
    for name in (
        *("average: sum ahead", "sign: mean", "square: 0.5 outside corrected", "square: 1 outside sum"),
        *("sign of square: 0.5", "length: sum ahead", "rows and columns: both, sum ahead"),
        *("rows and columns: lateral, mean corrected", "energy: sum from first"),
    )
    if name in RULES
}


class Composed(Steepest):
    """A rule as an optimizer."""

    own = Rule()

    @classmethod
    def recipe(cls, group):
        return cls.own


def optimizer_of(rule, params, fused, **settings):
    made = type("Composed", (Composed,), {"own": rule})
    numbers = {"lr": 0.02, **rule.hypers(), **settings}
    return made([{"params": params, **numbers}], lr=0.02, fused=fused)


def parameters(shapes, dtype, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [
        Parameter((scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype))
        for shape in shapes
    ]


def give(params, seed, scale=1.0, dtype=None):
    generator = torch.Generator().manual_seed(100 + seed)
    for p in params:
        grad = scale * torch.randn(p.shape, generator=generator, dtype=torch.float64)
        p.grad = grad.to(dtype or p.dtype)


def outcome(rule, fused, dtype, *, shapes=SHAPES, steps=1, scale=1.0, late=False, **settings):
    """Weights and state after some steps."""
    params = parameters(shapes, dtype)
    optimizer = optimizer_of(rule, params, fused, **settings)
    for seed in range(steps):
        give(params, seed, scale)
        if late and seed < 2:
            params[3].grad = params[-1].grad = None
        optimizer.step()
    state = [optimizer.state[p][name] for p in params for name in sorted(optimizer.state[p])]
    return copies(params), copies(state)


def gradient(param):
    """The gradient, which is there."""
    assert param.grad is not None
    return param.grad


def distance(found, expected, least=1e-300):
    """Largest difference relative to the largest entry of each tensor, or to ``least``."""
    worst = 0.0
    for x, y in zip(found, expected, strict=True):
        assert x.dtype == y.dtype
        x, y = x.double(), y.double()
        assert torch.equal(x.isfinite(), y.isfinite())
        x, y = x.nan_to_num(0, 0, 0), y.nan_to_num(0, 0, 0)
        worst = max(worst, ((x - y).abs().max() / y.abs().max().clamp(min=least)).item())
    return worst


def agree(found, expected, tolerance):
    """Whether weights and state agree, low-precision weights up to one unit of their last place."""
    bits = torch.finfo(expected[0][0].dtype).eps
    # Weights are of order one; a single entry may happen to land near zero.
    assert distance(found[0], expected[0], least=1.0) <= max(tolerance, bits if bits > 1e-3 else 0)
    if expected[1]:
        assert distance(found[1], expected[1]) <= tolerance


TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-13, torch.bfloat16: 1e-6}


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("name", RULES)
def test_one_step_is_the_reference_step(name, dtype):
    rule = RULES[name]
    [param] = parameters([(33, 65)], dtype)
    optimizer_of(rule, [param], True)  # raises where there is no kernel
    for decay in (0.0, 0.1):
        expected = outcome(rule, False, dtype, weight_decay=decay)
        agree(outcome(rule, None, dtype, weight_decay=decay), expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_hundred_steps_stay_together(name, dtype):
    """Drift over 100 steps: 2e-5 of the largest entry in float32, 1e-11 in float64, 1 % in bfloat16."""
    shapes = [(33, 65), (7,), (5, 40)]
    found, expected = (
        outcome(RULES[name], fused, dtype, shapes=shapes, steps=100, lr=1e-3) for fused in (None, False)
    )
    bound = {torch.float32: 2e-5, torch.float64: 1e-11, torch.bfloat16: 1e-2}[dtype]
    assert distance(found[0], expected[0]) <= bound


@pytest.mark.parametrize("decay", ["decoupled", "after", "l2", "cautious"])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_every_decay_both_ways(name, decay, maximize):
    rule = Rule(**{**vars(ONE_OF_EACH[name]), "decay": decay})
    found, expected = (
        outcome(rule, fused, torch.float32, steps=2, weight_decay=0.3, maximize=maximize)
        for fused in (None, False)
    )
    agree(found, expected, 2e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-12, 1e12, 1e30])
@pytest.mark.parametrize("eps", [0.0, 1e-8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["length: sum ahead", *(n for n in RULES if "energy" in n or "rows" in n)])
def test_squares_neither_overflow_nor_vanish(name, dtype, eps, scale):
    rule = RULES[name]
    numbers = {"eps": eps} if "eps" in rule.hypers() else {}
    shapes = [(33, 65), (7,), (5, 700)]
    found, expected = (
        outcome(rule, fused, dtype, shapes=shapes, scale=scale, **numbers) for fused in (None, False)
    )
    assert all(x.isfinite().all() for x in found[0])
    agree(found, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("name", [n for n in RULES if "square" in n])
def test_entries_that_never_saw_a_gradient_stand_still_without_eps(name):
    rule = RULES[name]
    results = []
    for fused in (None, False):
        params = parameters([(6, 20)], torch.float32)
        before = params[0].detach().clone()
        optimizer = optimizer_of(rule, params, fused, eps=0.0)
        give(params, 0)
        gradient(params[0])[2:4] = 0.0
        optimizer.step()
        assert torch.equal(params[0][2:4], before[2:4])
        results.append(copies(params))
    assert distance(*results) <= 1e-6


@pytest.mark.parametrize("name", ["rows and columns: both, sum ahead", "rows and columns: rows, sum ahead"])
def test_dead_rows_and_columns_without_eps(name):
    for dtype in (torch.float32, torch.float64):
        results = []
        for fused in (None, False):
            params = parameters([(40, 150)], dtype)
            optimizer = optimizer_of(RULES[name], params, fused, eps=0.0)
            give(params, 0)
            gradient(params[0])[3:9] = 0.0
            gradient(params[0])[:, 100:110] = 0.0
            gradient(params[0])[20] *= 1e-25
            optimizer.step()
            results.append(copies(params))
        assert distance(*results) <= TOLERANCE[dtype]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_what_is_not_finite_shows(name, bad):
    params = parameters([(33, 65), (33, 65)], torch.float32)
    optimizer = optimizer_of(ONE_OF_EACH[name], params, None, nonfinite="propagate")
    give(params, 0)
    gradient(params[0])[4, 5] = bad
    optimizer.step()
    assert not params[0][4, 5].isfinite() or (bad == float("inf") and "square" in name)  # M / inf = 0
    assert not all(x.isfinite().all() for x in (params[0], *optimizer.state[params[0]].values()))
    assert params[1].isfinite().all()


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_late_starters_have_their_own_count(name):
    found, expected = (
        outcome(ONE_OF_EACH[name], fused, torch.float64, steps=4, late=True) for fused in (None, False)
    )
    agree(found, expected, 1e-12)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_batch_dimensions_are_matrices_of_their_own(name):
    found, expected = (
        outcome(
            ONE_OF_EACH[name],
            fused,
            torch.float64,
            shapes=[(3, 20, 30), (2, 19), (2, 2, 5, 2, 3)],
            batch_dims=1,
        )
        for fused in (None, False)
    )
    agree(found, expected, 1e-13)


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_bfloat16_with_float32_gradients(name):
    results = []
    for fused in (None, False):
        rule = ONE_OF_EACH[name]
        params = parameters(SHAPES, torch.bfloat16)
        optimizer = optimizer_of(rule, params, fused)
        [group] = optimizer.param_groups
        generator = torch.Generator().manual_seed(5)
        members = [
            Member(group, i, p, torch.randn(p.shape, generator=generator)) for i, p in enumerate(params)
        ]
        with torch.no_grad():
            take_step(members, {id(group): rule}, optimizer.state, None)
        state = [optimizer.state[p][key] for p in params for key in sorted(optimizer.state[p])]
        results.append((copies(params), copies(state)))
    agree(results[0], results[1], 1e-6)


BIG = [(600, 500), (40, 30), (3,), (700, 130), (64, 40)]
"""Some that threads share, some that one thread takes."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_threads_repeat_and_agree(name, dtype):
    results = []
    count = torch.get_num_threads()
    try:
        for threads in (1, 2, 2, 3):
            torch.set_num_threads(threads)
            results.append(outcome(ONE_OF_EACH[name], None, dtype, shapes=BIG, steps=2))
    finally:
        torch.set_num_threads(count)
    one, two, again, three = results
    assert all(torch.equal(x, y) for x, y in zip(two[0] + two[1], again[0] + again[1], strict=True))
    agree(two, one, 1e-6)
    agree(three, one, 1e-6)


def test_gradients_of_any_layout():
    results = []
    for fused in (None, False):
        params = parameters([(6, 50), (4, 3, 5, 5)], torch.float32)
        optimizer = optimizer_of(RULES["rows and columns: both, sum ahead"], params, fused)
        give(params, 0)
        params[0].grad = gradient(params[0]).T.contiguous().T
        params[1].grad = gradient(params[1]).to(memory_format=torch.channels_last)
        optimizer.step()
        results.append(copies(params))
    assert distance(*results) <= 1e-6


def test_a_part_of_a_larger_tensor_that_is_not_aligned():
    results = []
    for fused in (None, False):
        whole = parameters([(1000,)], torch.float32)[0].detach()
        params = [Parameter(whole[1:601].view(20, 30)), Parameter(whole[603:1000])]
        optimizer = optimizer_of(RULES["rows and columns: both, sum ahead"], params, fused)
        give(params, 0)
        optimizer.step()
        results.append([whole])
    assert distance(*results) <= 1e-6


def test_autograd_notices_that_weights_moved():
    [p] = parameters([(4, 5)], torch.float32)
    optimizer = optimizer_of(RULES["sign: mean"], [p], True)
    loss = (p * p).sum()
    give([p], 0)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_state_that_raw_pointers_would_misread_is_refused():
    [p] = parameters([(4, 5)], torch.float32)
    optimizer = optimizer_of(RULES["average: sum"], [p], True)
    give([p], 0)
    optimizer.step()
    before = p.detach().clone()
    optimizer.state[p]["momentum_buffer"] = torch.zeros(4, 5, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"'momentum_buffer' of a parameter of shape \(4, 5\).*float64"):
        optimizer.step()
    assert torch.equal(p, before)


def test_where_there_is_no_kernel():
    rule = RULES["sign: mean"]
    group = {"maximize": False}
    kernel = native_kernel(rule, torch.zeros(3, 4), group)
    assert isinstance(kernel, NativeKernel)
    assert isinstance(kernel.plan, Elementwise)
    assert kernel is native_kernel(rule, torch.zeros(5), group)  # one bucket for all shapes
    for param in (torch.zeros(3, 4).T, torch.zeros(3, dtype=torch.float16), torch.zeros(3, device="meta")):
        assert native_kernel(rule, param, group) is None

    class Wrapped(torch.Tensor):
        pass

    assert native_kernel(rule, torch.zeros(3).as_subclass(Wrapped), group) is None
    other_power = Rule(preconditioner=Diagonal(0.4), step=DualScaled())
    assert native_kernel(other_power, torch.zeros(3), group) is None


def test_all_finite_reads_every_entry():
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        for size, where in ((1, 0), (17, 16), (100_003, 100_002), (100_003, 40_000)):
            good = torch.full((size,), torch.finfo(dtype).max, dtype=dtype)
            tensors = [torch.zeros(5), -good, good]
            assert native.all_finite(tensors)[:2] == (True, [])
            for bad in (float("nan"), float("inf"), -float("inf")):
                for at in (1, 2):
                    broken = [t.clone() for t in tensors]
                    broken[at][where] = bad
                    assert native.all_finite(broken)[0] is False


def test_all_finite_leaves_what_it_cannot_read():
    strided, whole = torch.zeros(4, 5).T, torch.zeros(3, dtype=torch.int8)
    finite, rest, _ = native.all_finite([torch.ones(3), strided, whole])
    assert finite
    assert [id(t) for t in rest] == [id(strided), id(whole)]
    assert native.all_finite([]) == (True, [], [])


def test_plans_have_all_been_tried():
    """The table of rules covers every kind of plan and every choice."""
    plans = set()
    for rule in RULES.values():
        kernel = native_kernel(rule, torch.zeros(33, 65), {"maximize": False})
        assert kernel is not None
        plans.add(kernel.plan)
    assert {type(plan) for plan in plans} == {Elementwise, Normalized, Equilibrated}
    averagings = {plan.averaging for plan in plans if plan.averaging}
    squares = {plan.square for plan in plans if isinstance(plan, Elementwise) and plan.square}
    assert {a.kind for a in averagings if isinstance(a, Averaging)} == {"heavy_ball", "ema"}
    assert len({(s.power, s.placement) for s in squares if isinstance(s, SquareStatistic)}) == 12
