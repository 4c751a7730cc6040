"""The Triton kernels compute what the rules compute: every kind of plan, dtype and awkward shape."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed, which the package can do without")

from triton_steps import DEVICE, HYPERS, difference, fused_step, plain_step, random, small_blocks, start

from steepest import EMA, Diagonal, EnergyFloor, Equilibration, HeavyBall, Max, NoMomentum, UnitLMO
from steepest.kernels.plans import Elementwise, Equilibrated, Normalized, plan_of
from steepest.rule import Rule
from steepest.steps import DualScaled

# The interpreter computes with NumPy, which remarks on what a device does silently.
pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")

SHAPES = [(), (33,), (600,), (1, 70), (33, 1), (17, 65), (5, 7, 3)]
"""No multiple of a block, more than one block along each side, and one block that is far from full."""
AFTER = HeavyBall(nesterov=True, where="after")
MEAN = EMA(bias_correction=True)


def andi(**options: object) -> Rule:
    """Equilibrated in every shape: also those of one row, which the named method leaves alone."""
    threshold = options.pop("threshold", 0)
    part = Equilibration(threshold=threshold, axis=options.pop("axis", "both"), **options.pop("part", {}))  # type: ignore[arg-type]
    return Rule(**{"preconditioner": part, "momentum": AFTER, "step": EnergyFloor(), **options})  # type: ignore[arg-type]


def diagonal(power: float, *, momentum: object = MEAN, **options: object) -> Rule:
    """Dual-scaled, so that S = M / D^2."""
    return Rule(preconditioner=Diagonal(power, **options), momentum=momentum, step=DualScaled())  # type: ignore[arg-type]


RULES = {
    "andi": andi(),
    "andi, thin": andi(threshold=20),
    "andi, lateral, as the author starts": andi(
        part={"mixing": "lateral"},
        momentum=HeavyBall(where="after", start="gradient"),
        decay="cautious",
    ),
    "andi, rows, corrected mean": andi(
        axis="rows", momentum=EMA(where="after", bias_correction=True, nesterov=True), decay="after"
    ),
    "andi, columns, no momentum, l2": andi(axis="columns", momentum=NoMomentum(), decay="l2"),
    "energy floor, mean": Rule(
        momentum=EMA(where="after", bias_correction=True), step=EnergyFloor(), decay="l2"
    ),
    "normalized": Rule(momentum=HeavyBall(nesterov=True)),
    "normalized, mean, l2, scaled": Rule(
        momentum=EMA(nesterov=True, bias_correction=True), step=UnitLMO("match_rms_adamw"), decay="l2"
    ),
    "normalized, from the first": Rule(momentum=HeavyBall(start="gradient"), decay="cautious"),
    "normalized gradient": Rule(decay="after"),
    "sign": Rule(norm=Max(), momentum=EMA(nesterov=True, buffer="momentum_buffer"), step=UnitLMO("unit_rms")),
    "sign over D": Rule(norm=Max(), momentum=MEAN, preconditioner=Diagonal(0.5), decay="cautious"),
    "sum of gradients": Rule(
        momentum=HeavyBall(start="gradient", nesterov=True), step=DualScaled(), decay="after"
    ),
    "adam": diagonal(0.5),
    "sania": diagonal(1.0, momentum=EMA(bias_correction=True, nesterov=True)),
    "third power": diagonal(1 / 3, bias_correction=False),
    "adagrad, l2": Rule(preconditioner=Diagonal(0.5, beta=None, initial=0.1), step=DualScaled(), decay="l2"),
    "inside": diagonal(0.25, eps_placement="inside", momentum=HeavyBall()),
    "floor": diagonal(0.5, eps_placement="floor"),
    "uncorrected": diagonal(0.5, eps_placement="uncorrected", momentum=EMA()),
}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    small_blocks(monkeypatch)


def both(
    rule: Rule,
    shapes: list[tuple[int, ...]],
    dtype: torch.dtype = torch.float32,
    steps: int = 1,
    change: Callable[[list[Tensor], int], list[Tensor | None]] = lambda grads, _: list(grads),
    **how: object,
) -> list[tuple[Tensor, Tensor]]:
    """Return parameters and state after steps on both paths, ours first; None as a gradient skips."""
    results = []
    for step in (fused_step, plain_step):
        params = random(shapes, dtype, seed=0)
        states = [start(rule, p, how.get("batch_dims", 0)) for p in params]  # type: ignore[arg-type]
        for t in range(steps):
            grads = change(random(shapes, dtype, seed=1 + t), t)
            part = [i for i, grad in enumerate(grads) if grad is not None]
            step(rule, *([x[i] for i in part] for x in (params, grads, states)), **how)  # type: ignore[arg-type]
        results.append([*params, *(value for state in states for value in state.values())])
    return list(zip(*results, strict=True))


def worst(pairs: list[tuple[Tensor, Tensor]]) -> float:
    return max(difference(ours, expected) for ours, expected in pairs)


def test_every_kind_of_plan_is_among_the_rules():
    shape = torch.Size((17, 33))
    plans = [plan_of(rule.for_shape(shape), shape) for rule in RULES.values()]
    assert {type(plan) for plan in plans} == {Elementwise, Normalized, Equilibrated}
    axes = {plan.axis for plan in plans if isinstance(plan, Equilibrated)}
    assert axes == {"both", "rows", "columns", "none"}
    assert {plan.decay for plan in plans if plan} == {"decoupled", "after", "l2", "cautious"}


@pytest.mark.no_cover  # interpreted line by line
@pytest.mark.parametrize("name", RULES)
def test_float32(name):
    assert worst(both(RULES[name], SHAPES, steps=2, maximize=name.endswith("l2"))) <= 1e-6


@pytest.mark.parametrize(
    "name",
    [
        "andi",
        "andi, rows, corrected mean",
        "energy floor, mean",
        "normalized, mean, l2, scaled",
        "adam",
        "third power",
        "sign over D",
    ],
)
def test_float64_throughout(name):
    pairs = both(RULES[name], [(33,), (9, 65)], torch.float64, steps=2)
    assert {ours.dtype for ours, _ in pairs if ours.ndim} == {torch.float64}
    assert worst(pairs) <= 1e-13


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["andi", "normalized", "adam", "adagrad, l2"])
def test_low_precision_is_rounded_once(name, dtype):
    """State in float32 agrees to rounding, and weights are the same numbers but for a tie or two."""
    shapes = [(33,), (9, 65), (5, 7, 3)]
    pairs = both(RULES[name], shapes, dtype, steps=2)
    weights, states = pairs[: len(shapes)], pairs[len(shapes) :]
    assert all(ours.dtype == torch.float32 for ours, _ in states)
    assert not states or worst(states) <= 1e-6
    ours, expected = (torch.cat([pair[i].flatten() for pair in weights]) for i in (0, 1))
    assert ours.dtype == dtype
    assert (ours != expected).float().mean() <= 0.005
    torch.testing.assert_close(ours, expected, rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.no_cover  # interpreted line by line
@pytest.mark.parametrize("name", ["andi", "andi, thin", "sign", "normalized", "sania"])
def test_drift_over_100_steps_is_bounded(name):
    """Rounding errors do not grow."""
    assert worst(both(RULES[name], [(5, 33)], steps=100)) <= 2e-6


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("name", ["andi", "andi, thin", "normalized", "sign"])
def test_extreme_gradients(name, scale):
    """Squares of these entries leave float32 on either side."""
    pairs = both(RULES[name], [(5, 33), (40,)], change=lambda grads, _: [scale * g for g in grads])
    assert all(ours.isfinite().all() for ours, _ in pairs)
    assert worst(pairs) <= 1e-6


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_extreme_gradients_of_squared_statistics_are_finite_where_it_matters(scale):
    """An overflowed statistic makes its entry stand still, as in the rule."""
    pairs = both(RULES["sania"], [(17,)], change=lambda grads, _: [scale * g for g in grads])
    weights, expected = pairs[0]
    assert weights.isfinite().all()
    assert difference(weights, expected) <= 1e-6


@pytest.mark.parametrize(
    "name", ["andi", "andi, thin", "andi, rows, corrected mean", "normalized", "sign over D", "sania"]
)
def test_zero_gradients_without_eps_stand_still(name):
    hypers = {**HYPERS, "eps": 0.0, "weight_decay": 0.0}
    rule = RULES[name]

    def rows_of_zeros(grads, _):
        grads[0][3], grads[0][:, 5], grads[1][...] = 0, 0, 0
        return grads

    pairs = both(rule, [(7, 33), (3, 4), (9,)], change=rows_of_zeros, hypers=hypers)
    assert worst(pairs) <= 1e-6
    start_of_it = random([(7, 33), (3, 4), (9,)], torch.float32, seed=0)
    assert torch.equal(pairs[1][0], start_of_it[1])
    assert not torch.equal(pairs[2][0], start_of_it[2])


@pytest.mark.parametrize("name", ["andi, lateral, as the author starts", "energy floor, mean", "adam"])
def test_late_starters_have_counts_of_their_own(name):
    def late(grads, t):
        return [grads[0], grads[1] if t == 2 else None]

    assert worst(both(RULES[name], [(5, 9), (3, 4)], steps=3, change=late)) <= 1e-6


@pytest.mark.parametrize("name", ["andi", "normalized", "andi, thin"])
def test_batch_dimensions_are_matrices_of_their_own(name):
    """As for the rule, and as for the slices stepped by themselves."""
    pairs = both(RULES[name], [(3, 17, 35), (2, 2, 4, 5)], batch_dims=1)
    assert worst(pairs) <= 1e-6
    params, grads = random([(3, 17, 35)], torch.float32, 0), random([(3, 17, 35)], torch.float32, 1)
    slices, slice_grads = list(params[0].clone()), list(grads[0])
    fused_step(RULES[name], params, grads, [start(RULES[name], params[0], 1)], batch_dims=1)
    fused_step(RULES[name], slices, slice_grads, [start(RULES[name], s) for s in slices])
    assert torch.equal(params[0], torch.stack(slices))


def test_gradients_of_any_layout_and_dtype():
    """Transposed, broadcast, and wider than the parameter; alone and among others."""

    def awkward(grads, _):
        first = grads[0].T.contiguous().T
        second = grads[1][:, :1].expand(3, 17, 2)[..., 0] if grads[1].ndim == 3 else grads[1][:1].expand(6, 8)
        return [first, second, grads[2].float()]

    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 4e-3)):
        pairs = both(RULES["andi"], [(5, 40), (6, 8), (17, 3)], dtype, change=awkward)
        assert worst(pairs) <= tolerance


def test_addresses_that_forbid_wide_accesses():
    """Views into a flat buffer begin at any entry."""
    for rule in (RULES["andi"], RULES["sania"]):
        results = []
        for step in (fused_step, plain_step):
            [flat, grad] = random([(701,), (701,)], torch.float32, 0)
            params = [flat[1:561].view(7, 80), flat[561:701].view(70, 2)]
            grads = [grad[1:561].view(7, 80), grad[561:701].view(70, 2)]
            step(rule, params, grads, [start(rule, p) for p in params])
            results.append(flat)
        assert difference(*results) <= 1e-6
        assert torch.equal(results[0][0], random([(701,)], torch.float32, 0)[0][0])


@pytest.mark.parametrize("name", ["andi", "normalized, mean, l2, scaled", "sign over D", "sania"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_may_be_tensors(name, dtype):
    """The same step, bit for bit, as with the numbers those tensors hold."""
    tensors = {key: torch.tensor(value, device=DEVICE, dtype=torch.float64) for key, value in HYPERS.items()}
    tensors["lr"] = tensors["lr"].float()
    results = []
    for hypers in ({key: value.item() for key, value in tensors.items()}, {**tensors, "eps": HYPERS["eps"]}):
        params = random([(7, 33), (9,)], dtype, 0)
        states = [start(RULES[name], p) for p in params]
        fused_step(RULES[name], params, random([(7, 33), (9,)], dtype, 1), states, hypers)
        results.append([*params, *(v for s in states for v in s.values())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("name", ["andi", "andi, thin", "normalized", "sania"])
def test_lists_and_repetition_change_no_bit(name):
    """A tensor's step depends on nothing that shares its launch, and equal input gives equal bits."""
    rule, results = RULES[name], []
    for together in (True, True, False):
        shapes = [(5, 40), (17, 3), (19,)]
        params, grads = random(shapes, torch.float32, 0), random(shapes, torch.float32, 1)
        states = [start(rule, p) for p in params]
        if together:
            fused_step(rule, params, grads, states)
        else:
            for i in range(len(shapes)):
                fused_step(rule, params[i : i + 1], grads[i : i + 1], states[i : i + 1])
        results.append([*params, *(v for s in states for v in s.values())])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("name", ["andi", "normalized", "sign", "sania"])
def test_nan_shows_and_stays_in_its_tensor(name):
    params, grads = random([(5, 7), (6,)], torch.float32, 0), random([(5, 7), (6,)], torch.float32, 1)
    grads[0][2, 3] = float("nan")
    fused_step(RULES[name], params, grads, [start(RULES[name], p) for p in params])
    assert params[0][2, 3].isnan()
    assert params[1].isfinite().all()
    if name in ("sign", "sania"):
        assert params[0].isnan().sum() == 1


def test_gradients_are_read_only_and_no_step_is_no_move():
    params, grads = random([(17, 33), (9,)], torch.float32, 0), random([(17, 33), (9,)], torch.float32, 1)
    before, kept = [p.clone() for p in params], [g.clone() for g in grads]
    for rule in (RULES["andi"], RULES["normalized"], RULES["sania"]):
        fused_step(rule, params, grads, [start(rule, p) for p in params], {**HYPERS, "lr": 0.0})
    assert all(torch.equal(a, b) for a, b in zip([*params, *grads], [*before, *kept], strict=True))
