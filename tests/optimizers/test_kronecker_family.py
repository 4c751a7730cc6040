"""What Shampoo, SOAP, KL-Shampoo and SPlus share: geometry, blocks, limits, scales, and state."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.testing import assert_close

from optimizers.trajectories import assert_same, follow, gradients, start
from references.common import msign
from references.kl import kl_shampoo
from references.shampoo import power, shampoo
from steepest import (
    EMA,
    KLSOAP,
    SOAP,
    Diagonal,
    DualScaled,
    Eigenbasis,
    Frobenius,
    Grafted,
    Identity,
    KLEigenbasis,
    KLShampoo,
    Kronecker,
    Max,
    MeanSide,
    Muon,
    OneSidedShampoo,
    Rule,
    Shampoo,
    Spectral,
    SPlus,
    Steepest,
    UnitLMO,
)
from steepest.preconditioners import ScaledDiagonal
from steepest.steps import Clipped

METHODS: list[tuple[Any, dict[str, Any]]] = [
    (Shampoo, {}),
    (Shampoo, {"betas": (0.9, 0.95), "precondition_frequency": 4}),
    (Shampoo, {"grafting": "adam", "max_precondition_dim": 4}),
    (OneSidedShampoo, {"side": "smaller"}),
    (KLShampoo, {"precondition_frequency": 3}),
    (KLSOAP, {"precondition_frequency": 3}),
    (SOAP, {"precondition_frequency": 3}),
    (SOAP, {"include_current": True, "max_precondition_dim": 8}),
    (SPlus, {"precondition_frequency": 5}),
]
every_method = pytest.mark.parametrize(
    ("make", "options"), METHODS, ids=lambda value: value.__name__ if isinstance(value, type) else str(value)
)


def stepped(preconditioner: Any, grads: list[Tensor]) -> tuple[Any, dict[str, Tensor]]:
    """The coordinates and state of a stack of one matrix after these gradients."""
    state = preconditioner.init(grads[0][None])
    coordinates = None
    for t, g in enumerate(grads, start=1):
        hypers = {"beta2": 0.9, "eps": 1e-3, "step": t - preconditioner.skipped}
        coordinates = preconditioner.prepare(g[None], state, hypers)
        preconditioner.finish(g[None], state, hypers)
    return coordinates, state


PARTS: list[Any] = [
    Kronecker(beta=0.9, eps=1e-3),
    Kronecker(beta=None, eps=1e-3, max_dim=4),
    Kronecker(beta=0.9, eps=1e-3, sides="left"),
    Eigenbasis(Diagonal(0.5, 0.9), beta=None),
    Eigenbasis(ScaledDiagonal(0.5, 0.9), beta=None, start="skip", frequency=2),
    KLEigenbasis(frequency=2),
    KLEigenbasis(Diagonal(0.5, bias_correction=False)),
]


@pytest.mark.parametrize("part", PARTS, ids=repr)
@pytest.mark.parametrize("shape", [(6, 9), (7, 7)])
def test_solve_is_into_and_back(part, shape):
    grads = gradients(shape, 5)
    m = start(shape)[None]
    whole, apart = stepped(part, grads)[0], stepped(part.apart(), grads)[0]
    for coordinates in (whole, apart):
        torch.testing.assert_close(
            coordinates.back(coordinates.into(m)), whole.solve(m), rtol=1e-9, atol=1e-11
        )
        torch.testing.assert_close(coordinates.solve(m), whole.solve(m), rtol=1e-9, atol=1e-11)


def test_kronecker_coordinates_are_those_of_the_framework():
    """into(M) = L^-T M R^-T with L^T L = A^(1/4), for any norm."""
    shape = (5, 6)
    w0, grads = start(shape), gradients(shape)
    rule: dict[str, Any] = {"norm": Spectral("svd"), "momentum": EMA(0.8), "step": UnitLMO()}
    actual = follow(Steepest, w0, grads, lr=0.1, preconditioner=Kronecker(eps=1e-2), **rule)
    w, m, a, b, expected = w0, 0 * w0, 0 * w0 @ w0.T, 0 * w0.T @ w0, []
    for g in grads:
        m, a, b = 0.8 * m + 0.2 * g, a + g @ g.T, b + g.T @ g
        left = power(a + 1e-2 * torch.eye(5, dtype=a.dtype), -1 / 8)
        right = power(b + 1e-2 * torch.eye(6, dtype=a.dtype), -1 / 8)
        w = w - 0.1 * left @ msign(left @ m @ right) @ right
        expected.append(w)
    assert_same(actual, expected, 1e-10)


@pytest.mark.parametrize("dual", [True, False])
def test_rotation_does_not_change_the_spectral_norm(dual):
    w0, grads = start((6, 9)), gradients((6, 9))
    shared: dict[str, Any] = {"norm": Spectral("svd"), "step": DualScaled() if dual else UnitLMO()}
    rotated = follow(Steepest, w0, grads, lr=0.02, preconditioner=Eigenbasis(), **shared)
    assert_same(rotated, follow(Steepest, w0, grads, lr=0.02, **shared), 1e-9)


def test_rotation_changes_the_max_norm():
    w0, grads = start((6, 6)), gradients((6, 6))
    shared: dict[str, Any] = {"norm": Max(), "step": UnitLMO()}
    rotated = follow(Steepest, w0, grads, lr=0.02, preconditioner=Eigenbasis(), **shared)
    plain = follow(Steepest, w0, grads, lr=0.02, **shared)
    assert float((rotated[-1] - plain[-1]).abs().max()) > 1e-2


@pytest.mark.parametrize("norm", [Frobenius(), Max(), Spectral("svd")], ids=repr)
@pytest.mark.parametrize("part", PARTS, ids=repr)
@pytest.mark.parametrize("step", [UnitLMO(), DualScaled()], ids=repr)
def test_every_norm_descends_in_these_coordinates(norm, part, step):
    """<M, S> = |T|* > 0 whatever the coordinates."""
    grads = [start((6, 9))] * 6
    w = follow(Steepest, 0 * grads[0], grads, lr=0.1, norm=norm, preconditioner=part, step=step)
    moves = [b - a for a, b in zip([0 * grads[0], *w], w, strict=False)]
    assert all(float((move * grads[0]).sum()) < 0 for move in moves[part.skipped :])


def test_shampoo_is_its_recipe():
    w0, grads = start((6, 9)), gradients((6, 9))
    composed = follow(
        Steepest,
        w0,
        grads,
        lr=0.1,
        preconditioner=Kronecker(eps=1e-4, frequency=3),
        momentum=EMA(0.9, bias_correction=True),
        weight_decay=0.1,
    )
    named = follow(Shampoo, w0, grads, lr=0.1, eps=1e-4, precondition_frequency=3, weight_decay=0.1)
    assert all(torch.equal(a, b) for a, b in zip(composed, named, strict=True))


@pytest.mark.parametrize("shape", [(10, 7), (8, 3), (3, 8), (11,), (5, 3, 3)])
def test_blocks_are_preconditioned_by_themselves(shape):
    w0, grads = start(shape), gradients(shape)
    hypers: dict[str, Any] = {"lr": 0.1, "eps": 1e-3, "betas": (0.9, 0.95), "precondition_frequency": 2}
    actual = follow(Shampoo, w0, grads, max_precondition_dim=4, **hypers)

    def blocks(x: Tensor) -> list[Tensor]:
        x = x.reshape(shape[0], -1) if len(shape) > 1 else x
        rows = x.split(4)
        return [block for row in rows for block in row.split(4, dim=1)] if len(shape) > 1 else list(rows)

    apart = [shampoo(w, list(g), **hypers) for w, *g in zip(blocks(w0), *map(blocks, grads), strict=True)]
    for w, *pieces in zip(actual, *apart, strict=True):
        for mine, theirs in zip(blocks(w), pieces, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-11)


def test_one_sided_blocks_leave_the_other_side_whole():
    w0, grads = start((7, 9)), gradients((7, 9))
    hypers: dict[str, Any] = {"lr": 0.1, "eps": 1e-3, "side": "left"}
    actual = follow(OneSidedShampoo, w0, grads, max_precondition_dim=4, **hypers)
    for rows in (slice(0, 4), slice(4, 7)):
        alone = follow(OneSidedShampoo, w0[rows], [g[rows] for g in grads], **hypers)
        assert_same([w[rows] for w in actual], alone, 1e-10)


def test_without_preconditioning_shampoo_is_its_graft():
    """A large eps turns both roots into multiples of the identity; sgd's length restores the momentum.

    1e-16 beside |P| = 1e-6 |m|, and A beside eps, leave about 1e-10.
    """
    w0, grads = start((6, 9)), gradients((6, 9))
    off = follow(Shampoo, w0, grads, lr=0.1, eps=1e12, grafting="sgd", weight_decay=0.1)
    sgd: dict[str, Any] = {"momentum": EMA(0.9, bias_correction=True), "step": DualScaled()}
    assert_same(off, follow(Steepest, w0, grads, lr=0.1, weight_decay=0.1, **sgd), 1e-9)


@pytest.mark.parametrize("shape", [(1, 1), (1,), ()])
def test_a_single_entry_is_its_graft(shape):
    w0, grads = start(shape), gradients(shape)
    ours = follow(Shampoo, w0, grads, lr=0.1, grafting="adam", weight_decay=0.1)
    assert_same(ours, follow(torch.optim.AdamW, w0, grads, lr=0.1, weight_decay=0.1, foreach=False), 1e-12)


def test_kl_shampoo_with_fixed_bases_is_a_diagonal_method():
    """A diagonal first gradient has the identity as its basis, which is then never refreshed."""
    first = torch.diag(torch.arange(6, 0, -1, dtype=torch.float64))
    w0, grads = start((6, 6)), [first, *gradients((6, 6))]
    ours = follow(KLShampoo, w0, grads, lr=0.02, precondition_frequency=10**6)
    assert_same(ours, kl_shampoo(w0, grads, lr=0.02, fixed_bases=True), 1e-12)


@pytest.mark.parametrize("beta", [0.9, None])
@pytest.mark.parametrize("placement", ["outside", "uncorrected", "inside", "floor"])
def test_scaled_diagonal_is_the_diagonal(beta, placement):
    w0, grads = start((4, 5)), gradients((4, 5))
    grads = [g * 10.0**k for g, k in zip(grads, [0, 3, -6, 0] * 6, strict=True)]
    choices: dict[str, Any] = {"beta": beta, "eps": 1e-3, "eps_placement": placement}
    scaled, plain = (
        follow(Steepest, w0, grads, lr=0.1, preconditioner=part(0.5, **choices))
        for part in (ScaledDiagonal, Diagonal)
    )
    assert_same(scaled, plain, 1e-12)


def paths(shape: tuple[int, ...]) -> dict[str, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    base = normal(*shape)
    noisy = [base + 0.3 * normal(*shape) for _ in range(12)]
    return {
        "rank one": [torch.outer(normal(shape[0]).abs(), normal(shape[1]).abs()) for _ in range(14)],
        "constant": [base] * 14,
        "zeros, then signal": [torch.zeros(shape)] * 100 + noisy,
        "tiny": [1e-20 * g for g in noisy],
        "huge": [1e20 * g for g in noisy],
        "one huge": [*noisy[:3], 1e20 * base, *noisy],
        "nearly the smallest": [1e-30 * g for g in noisy],
        "nearly the largest": [1e30 * g for g in noisy],
    }


@every_method
@pytest.mark.no_cover  # other tests take the same lines
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((6, 9), torch.float32), ((9, 6), torch.bfloat16), ((1, 7), torch.float32), ((7, 1), torch.bfloat16)],
    ids=str,
)
def test_hard_gradients(make, options, dtype, shape):
    """Weights and state stay finite, the total movement is downhill, no eigensolver fails."""
    for name, grads in paths(shape).items():
        w = Parameter(torch.zeros(shape, dtype=dtype))
        optimizer = make([w], weight_decay=0.0, **options)
        for g in grads:
            w.grad = g.to(dtype)
            optimizer.step()
        assert torch.isfinite(w).all(), name
        assert all(torch.isfinite(value).all() for value in optimizer.state[w].values()), name
        downhill = -(w.detach().double() * torch.stack(grads).double().sum(0)).sum()
        assert downhill > 0, name
        assert int(optimizer.state[w]["fallbacks"]) == 0, name


@pytest.mark.parametrize("options", [{}, {"betas": (0.9, 0.95)}])
def test_a_gradient_after_zeros_does_not_meet_the_root_of_eps(options):
    """A parameter without gradient at the last refresh has no statistics: it moves by its momentum."""
    g = torch.ones(3, 4)
    w0 = torch.zeros(3, 4)
    w = follow(Shampoo, w0, [0 * g, g], lr=1.0, precondition_frequency=10, **options)[-1]
    assert float(w.abs().max()) < 1.0


def bytes_of(optimizer: Any, param: Tensor) -> int:
    return sum(value.numel() * value.element_size() for value in optimizer.state[param].values())


def formula(make: Any, options: dict[str, Any], m: int, n: int) -> int:
    """Bytes of a float32 m x n matrix, as the docstrings say."""
    factors = 8 * m * m + 8 * n * n
    if make is Shampoo and "max_precondition_dim" in options:
        d = options["max_precondition_dim"]
        r, c = min(m, d), min(n, d)
        return 8 * m * n + 4 + 12 + -(-m // r) * -(-n // c) * (8 * r * r + 8 * c * c + 8)
    return {
        Shampoo: 4 * m * n + factors + 20,
        OneSidedShampoo: 4 * m * n + 8 * min(m, n) ** 2 + 16,
        KLShampoo: 4 * m * n + factors + 8 * m + 8 * n + 20,
        KLSOAP: 8 * m * n + factors + 8 * m + 8 * n + 24,
        SOAP: 8 * m * n + factors + 24,
        SPlus: 8 * m * n + factors + 20,
    }[make]


@every_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_state_has_the_documented_size(make, options, dtype):
    w = Parameter(torch.zeros(8, 6, dtype=dtype))
    optimizer = make([w], **options)
    w.grad = torch.ones_like(w)
    optimizer.step()
    assert bytes_of(optimizer, w) == formula(make, options, 8, 6)


def test_a_side_over_the_limit_has_no_factor():
    w = Parameter(torch.zeros(8, 6))
    optimizer = SOAP([w], max_precondition_dim=7)
    w.grad = torch.ones_like(w)
    optimizer.step()
    assert bytes_of(optimizer, w) == 8 * 48 + 8 * 36 + 20


@every_method
def test_parameters_of_one_shape_move_as_each_would_alone(make, options):
    shape = (5, 6)
    if make is SOAP:  # the first projection of the current gradient is diagonal up to rounding
        options = {**options, "eps": 1e-3}
    starts, paths_ = [start(shape, s) for s in range(3)], [gradients(shape, 13, s) for s in range(3)]
    alone = [follow(make, w, g, **options)[-1] for w, g in zip(starts, paths_, strict=True)]
    params = [Parameter(w.clone()) for w in starts]
    stack = Parameter(torch.stack(starts))
    together, stacked = make(params, **options), make([{"params": [stack], "batch_dims": 1}], **options)
    for step_grads in zip(*paths_, strict=True):
        for param, g in zip(params, step_grads, strict=True):
            param.grad = g.clone()
        stack.grad = torch.stack(step_grads)
        together.step()
        stacked.step()
    for i, expected in enumerate(alone):
        torch.testing.assert_close(params[i].detach(), expected, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(stack[i].detach(), expected, rtol=1e-9, atol=1e-10)
    assert tuple(stacked.state[stack]["fallbacks"].shape) == (3,)


def run(optimizer: Any, param: Parameter, grads: list[Tensor]) -> None:
    for g in grads:
        param.grad = g.to(param.dtype)
        optimizer.step()


@every_method
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_resume_is_bitwise(make, options, dtype):
    grads = gradients((6, 9), 14)
    w = Parameter(start((6, 9)).to(dtype))
    optimizer = make([w], **options)
    run(optimizer, w, grads[:7])
    saved, twin = copy.deepcopy(optimizer.state_dict()), Parameter(w.detach().clone())
    run(optimizer, w, grads[7:])
    resumed = make([twin], **options)
    resumed.load_state_dict(saved)
    run(resumed, twin, grads[7:])
    assert torch.equal(w, twin)
    for name, value in optimizer.state[w].items():
        assert torch.equal(value, resumed.state[twin][name]), name


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_splus_saved_in_evaluation_resumes_after_train(dtype):
    grads = gradients((6, 9), 10)
    w = Parameter(start((6, 9)).to(dtype))
    optimizer = SPlus([w])
    run(optimizer, w, grads[:5])
    trained = w.detach().clone()
    optimizer.eval()
    optimizer.eval()  # a second call changes nothing
    assert not torch.equal(w, trained)
    with pytest.raises(RuntimeError, match=r"call optimizer\.train\(\)"):
        optimizer.step()
    saved, twin = copy.deepcopy(optimizer.state_dict()), Parameter(w.detach().clone())
    resumed = SPlus([twin])
    resumed.load_state_dict(saved)
    for one, param in ((optimizer, w), (resumed, twin)):
        one.train()
        assert torch.equal(param, trained)
        run(one, param, grads[5:])
    assert torch.equal(w, twin)


def test_splus_evaluates_untouched_parameters_as_they_are():
    w = Parameter(torch.ones(3, 3))
    optimizer = SPlus([w])
    optimizer.eval()
    assert torch.equal(w, torch.ones(3, 3))


@every_method
def test_failing_eigensolvers_are_counted_and_survived(make, options, monkeypatch):
    """Every eigendecomposition and QR fails: bases and roots stay the identity, and training goes on."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise torch.linalg.LinAlgError("no convergence")  # pyright: ignore[reportPrivateImportUsage]

    monkeypatch.setattr(torch.linalg, "eigh", fail)
    w = Parameter(torch.zeros(6, 6))
    optimizer = make([w], **options)
    run(optimizer, w, [torch.ones(6, 6)] * 3)
    assert torch.isfinite(w).all()
    assert float(w.detach().sum()) < 0
    assert int(optimizer.state[w]["fallbacks"]) > 0


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (Shampoo, {"betas": (1.0, 1.0)}, r"betas\[0\] must be in \[0, 1\), got 1.0"),
        (Shampoo, {"betas": (0.9, 1.1)}, r"betas\[1\] must be in \[0, 1\], got 1.1"),
        (SOAP, {"betas": (0.9, 1.0)}, r"betas\[1\] must be in \[0, 1\), got 1.0"),
        (Shampoo, {"grafting": "lion"}, "grafting must be one of None, 'sgd'"),
        (Shampoo, {"precondition_frequency": 0}, "precondition_frequency must be an integer >= 1, got 0"),
        (Shampoo, {"max_precondition_dim": 0}, "max_precondition_dim must be an integer >= 1, got 0"),
        (OneSidedShampoo, {"side": "both"}, "side must be one of 'left', 'right', 'smaller', got 'both'"),
        (KLShampoo, {"shampoo_beta": 1.0}, r"shampoo_beta must be in \[0, 1\), got 1.0"),
        (SOAP, {"include_current": 1}, "include_current must be one of True, False, got 1"),
        (SPlus, {"ema": 1.0}, r"ema must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_values_are_named(make, options, message):
    with pytest.raises(ValueError, match=message):
        make([Parameter(torch.zeros(2, 2))], **options)


@pytest.mark.parametrize("timing", ["together", "staggered", "background"])
def test_a_graft_may_be_the_one_that_counts_steps(timing):
    """Gradient descent with Shampoo's length."""
    w, grads = Parameter(start((4, 3))), gradients((4, 3), 4)
    shampoo = Kronecker(frequency=2, refresh_timing=timing)
    optimizer = Steepest([w], lr=1.0, preconditioner=Grafted(Identity(), shampoo))
    alone = Parameter(w.detach().clone())
    reference = Steepest([alone], lr=1.0, preconditioner=shampoo)
    for g in grads:
        before, own = alone.detach().clone(), w.detach().clone()
        run(optimizer, w, [g])
        run(reference, alone, [g])
        assert_close(own - w, g / g.norm() * (alone - before).norm(), rtol=1e-9, atol=0)


def test_illegal_compositions_are_refused():
    grafted = Grafted(Kronecker(), Identity())
    with pytest.raises(ValueError, match="grafting needs the Frobenius norm"):
        Rule(norm=Spectral(), preconditioner=grafted)
    with pytest.raises(ValueError, match="beta must be a number"):
        Eigenbasis(beta=None)
    with pytest.raises(TypeError, match="uses every gradient"):
        Grafted(KLEigenbasis(), Identity())
    with pytest.raises(ValueError, match="would share the state 'exp_avg_sq'; take a graft"):
        Grafted(Eigenbasis(Diagonal()), Diagonal(beta=0.9))
    with pytest.raises(ValueError, match="average=True needs a step length"):
        Rule(step=Clipped(), average=True)
    with pytest.raises(ValueError, match="average=True needs a preconditioner whose first step moves"):
        Rule(preconditioner=KLEigenbasis(), average=True)
    bad: list[tuple[Any, str]] = [(Kronecker, "frequency"), (Kronecker, "max_dim"), (Eigenbasis, "frequency")]
    for part, name in bad:
        with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
            part(**{name: 0})


@pytest.mark.parametrize("make", [OneSidedShampoo, KLShampoo, KLSOAP, SOAP])
@pytest.mark.parametrize("shape", [(7,), ()])
def test_what_is_no_matrix_goes_to_adamw(make, shape):
    w0, grads = start(shape), gradients(shape)
    aux: dict[str, Any] = {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.2}
    expected = follow(torch.optim.AdamW, w0, grads, **aux, foreach=False)
    assert_same(follow(make, w0, grads, lr=0.5, aux=aux), expected)


def test_mean_side_scales_lr_and_decay():
    """e = lr 2/(m + n) for the step and for the decay."""
    w = start((3, 5))
    (moved,) = follow(Steepest, w, [0 * w], lr=0.4, weight_decay=0.5, step=MeanSide())
    torch.testing.assert_close(moved, w * (1 - 0.4 * 2 / 8 * 0.5), rtol=1e-14, atol=0)


def test_muon_and_shampoo_agree_on_one_gradient():
    """For a single gradient Shampoo's step is the polar factor."""
    w0, g = start((5, 7)), gradients((5, 7), 1)
    (muon,) = follow(Muon, w0, g, lr=0.1, scale=None, orthogonalizer="svd")
    (ours,) = follow(Shampoo, w0, g, lr=0.1)
    torch.testing.assert_close(w0 - ours, w0 - muon, rtol=0, atol=1e-10)
