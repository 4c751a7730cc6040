"""The restatements checked against torch.optim and against each other where two rules must coincide."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from references import diagonal, kfac, kl, scion, shampoo, soap
from references.andi import andi_direction, equilibrate
from references.common import POLAR_EXPRESS, QUINTIC, msign, polynomial_polar
from references.muon import muadam, muadam_sania, muon
from references.sgd import normalized_sgd, sign_sgd

STEPS = 25


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sequence(*shape: int, steps: int = STEPS, seed: int = 5) -> list[Tensor]:
    signal = normal(*shape, seed=seed)
    return [0.5 * signal + normal(*shape, seed=seed + 1 + t) for t in range(steps)]


def orthogonal(n: int, seed: int = 7) -> Tensor:
    return torch.linalg.qr(normal(n, n, seed=seed))[0]


def by_torch(optimizer, w0: Tensor, grads: list[Tensor], **kwargs) -> list[Tensor]:
    parameter = torch.nn.Parameter(w0.clone())
    instance = optimizer([parameter], **kwargs)
    iterates = []
    for g in grads:
        parameter.grad = g.clone()
        instance.step()
        iterates.append(parameter.detach().clone())
    return iterates


def assert_same(actual: list[Tensor], expected: list[Tensor], tolerance: float = 1e-12) -> None:
    assert len(actual) == len(expected) > 0
    for a, b in zip(actual, expected, strict=True):
        assert float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max()))


def moves(w0: Tensor, iterates: list[Tensor]) -> list[Tensor]:
    return [b - a for a, b in zip([w0, *iterates], iterates, strict=False)]


# Against torch.optim


def test_adam_adamw_adagrad_are_torchs():
    w0, grads = normal(4, 6), sequence(4, 6)
    hypers: dict[str, Any] = {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}
    assert_same(diagonal.adam(w0, grads, **hypers), by_torch(torch.optim.AdamW, w0, grads, **hypers))
    assert_same(
        diagonal.adam(w0, grads, **hypers, decoupled=False), by_torch(torch.optim.Adam, w0, grads, **hypers)
    )
    plain: dict[str, Any] = {"lr": 0.05, "eps": 1e-3, "weight_decay": 0.1}
    assert_same(diagonal.adagrad(w0, grads, **plain), by_torch(torch.optim.Adagrad, w0, grads, **plain))


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5)])
@pytest.mark.parametrize("scale", ["original", "match_rms_adamw"])
def test_muon_is_torchs(monkeypatch, shape, scale):
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.clone())
    w0, grads = normal(*shape), sequence(*shape)
    hypers: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
    expected = by_torch(torch.optim.Muon, w0, grads, **hypers, adjust_lr_fn=scale)
    assert_same(muon(w0, grads, **hypers, scale=scale), expected)


# Spectral and sign rules


@pytest.mark.parametrize(
    ("coefficients", "margin", "low", "high"), [(QUINTIC, 1.0, 0.6, 1.3), (POLAR_EXPRESS, 1.02, 0.85, 1.15)]
)
@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_polynomials_approach_the_polar_factor(coefficients, margin, low, high, shape):
    x = normal(*shape)
    o = polynomial_polar(x, coefficients, margin)
    values = torch.linalg.svdvals(o)
    assert low < float(values.min()) <= float(values.max()) < high
    exact = msign(x)
    assert float((o * exact).sum() / (o.norm() * exact.norm())) > 0.97
    assert_same([polynomial_polar(x * 1e-10, coefficients, margin)], [o], 1e-9)


def test_muadam_with_unit_geometry_is_muon():
    w0, grads = normal(4, 6), [g.sign() for g in sequence(4, 6)]
    expected = muon(w0, grads, lr=0.1, momentum=0.9, nesterov=False, orthogonalizer="svd")
    for rule in (muadam, muadam_sania):
        actual = rule(w0, grads, lr=0.1, betas=(0.9, 0.95), eps=1e-30, orthogonalizer="svd")
        assert_same(actual, expected, 1e-11)


def test_one_row_makes_spectral_frobenius_and_one_entry_makes_it_sign():
    w0, grads = normal(1, 6), sequence(1, 6)
    expected = normalized_sgd(w0, grads, lr=0.1, momentum=0.9)
    assert_same(muon(w0, grads, lr=0.1, momentum=0.9, nesterov=False, orthogonalizer="svd"), expected)
    w0, grads = normal(1, 1), sequence(1, 1)
    expected = sign_sgd(w0, grads, lr=0.1, momentum=0.9)
    assert_same(muon(w0, grads, lr=0.1, momentum=0.9, nesterov=False, orthogonalizer="svd"), expected)


# ANDI


def test_direct_mixing_is_none_and_lateral_is_not():
    g = normal(9, 11)
    assert_same([equilibrate(g, 1e-8, "direct", 3)], [equilibrate(g, 1e-8)], 1e-14)
    assert float((equilibrate(g, 1e-8, "lateral", 3) - equilibrate(g, 1e-8)).abs().max()) > 1e-3


def test_andi_of_a_permutation_is_half_of_it_brought_to_length():
    g = torch.eye(4, dtype=torch.float64) * 3
    assert_same([equilibrate(g, 0.0)], [torch.eye(4, dtype=torch.float64) / 2], 1e-15)
    h = andi_direction(g, threshold=1)
    assert float(h.norm()) == pytest.approx(math.sqrt(4 * 9 + 1), rel=1e-7)


# Diagonal family


def test_sania_polyak_solves_its_quadratic_model():
    """f - lambda q + lambda^2 q / 2 = 0 whenever that has a root, and both branches occur."""
    target = [normal(3, 4, seed=1), normal(5, seed=2)]
    branches = set()

    def loss_and_grads(weights: list[Tensor]) -> tuple[float, list[Tensor]]:
        grads = [w - x for w, x in zip(weights, target, strict=True)]
        return 0.05 * sum(float((g * g).sum()) for g in grads), [0.1 * g for g in grads]

    for beta, eps in [(None, 0.17), (0.9, 0.17), (0.9, 1e-4)]:
        w0 = [normal(3, 4, seed=3), normal(5, seed=4)]
        weights, second = w0, [torch.zeros_like(w) for w in w0]
        for new in diagonal.sania_polyak(w0, loss_and_grads, 10, lr=1.0, beta=beta, eps=eps):
            f, grads = loss_and_grads(weights)
            decay, share = (1.0, 1.0) if beta is None else (beta, 1 - beta)
            second = [decay * v + share * g * g for v, g in zip(second, grads, strict=True)]
            b = [v.clamp(min=eps) for v in second]
            q = sum(float((g * g / x).sum()) for g, x in zip(grads, b, strict=True))
            lam = float(((weights[0] - new[0]) * b[0] / grads[0]).mean())
            branches.add(2 * f < q)
            if 2 * f < q:
                assert f - lam * q + 0.5 * lam**2 * q == pytest.approx(0, abs=1e-9 * q)
                assert 0 < lam < 1
            else:
                assert lam == pytest.approx(1, rel=1e-9)
            weights = new
    assert branches == {True, False}


def test_madgrad_first_step_and_its_averaging():
    w0, grads = normal(3, 4), sequence(3, 4)
    lam = 0.1 + 1e-6
    g = grads[0]
    first = diagonal.madgrad(w0, grads[:1], lr=0.1, momentum=0.0)[0]
    assert_same([first], [w0 - lam * g / ((lam * g**2).pow(1 / 3) + 1e-6)])
    averaged = diagonal.madgrad(w0, grads[:1], lr=0.1, momentum=0.9)[0]
    assert_same([averaged], [0.9 * w0 + 0.1 * first])


def test_madgrad_without_decay_does_not_care_where_decay_would_go():
    w0, grads = normal(3, 4), sequence(3, 4)
    assert_same(diagonal.madgrad(w0, grads, decoupled=True), diagonal.madgrad(w0, grads))
    coupled = diagonal.madgrad(w0, grads, weight_decay=0.1)
    assert (
        float((coupled[-1] - diagonal.madgrad(w0, grads, weight_decay=0.1, decoupled=True)[-1]).norm()) > 1e-3
    )


# Kronecker family


def test_shampoo_of_one_entry_is_adagrad():
    w0, grads = normal(1, 1), sequence(1, 1)
    expected = diagonal.adagrad(w0, grads, lr=0.1, eps=0.0)
    assert_same(shampoo.shampoo(w0, grads, lr=0.1, betas=(0.0, 1.0), eps=0.0), expected)
    assert_same(shampoo.shampoo(w0[0], [g[0] for g in grads], 0.1, (0.0, 1.0), 0.0), [w[0] for w in expected])


def test_shampoo_of_diagonal_gradients_is_adagrad_on_the_diagonal():
    w0, diagonals = torch.diag(normal(5)), sequence(5)
    actual = shampoo.shampoo(w0, [torch.diag(d) for d in diagonals], lr=0.1, betas=(0.0, 1.0), eps=0.0)
    expected = diagonal.adagrad(torch.diag(w0), diagonals, lr=0.1, eps=0.0)
    assert_same(actual, [torch.diag(w) for w in expected], 1e-12)


@pytest.mark.parametrize("shape", [(5, 5), (4, 7), (7, 4)])
@pytest.mark.parametrize("beta2", [1.0, 0.9])
def test_one_sided_shampoo_starts_with_the_polar_factor(shape, beta2):
    w0, grads = normal(*shape), sequence(*shape, steps=1)
    actual = shampoo.one_sided_shampoo(w0, grads, lr=0.1, betas=(0.9, beta2), side="smaller")
    assert_same(actual, [w0 - 0.1 * msign(grads[0])], 1e-9)


def test_shampoo_starts_with_the_polar_factor_of_a_square_gradient():
    """(G G^T)^(-1/4) G (G^T G)^(-1/4) = U V^T; with an EMA a constant gradient keeps giving it."""
    w0, g = normal(5, 5), normal(5, 5, seed=3)
    sides = shampoo.shampoo(w0, [g] * 5, lr=0.1, betas=(0.9, 0.95))
    for move in moves(w0, sides):
        assert_same([move], [-0.1 * msign(g)], 1e-7)


@pytest.mark.parametrize("grafting", ["sgd", "adagrad", "rmsprop", "adam"])
def test_grafting_takes_the_length_of_the_graft(grafting):
    """With b1 = 0 the graft is the named method itself; its step lengths are those of the grafted one."""
    w0, grads = normal(5, 5), sequence(5, 5)
    hypers: dict[str, Any] = {"lr": 0.1, "betas": (0.0, 1.0), "graft_beta": 0.9, "graft_eps": 1e-8}
    actual = moves(w0, shampoo.shampoo(w0, grads, **hypers, grafting=grafting))
    peer = {
        "sgd": [-0.1 * g for g in grads],
        "adagrad": moves(w0, diagonal.adagrad(w0, grads, lr=0.1, eps=1e-8)),
        "adam": moves(w0, diagonal.adam(w0, grads, lr=0.1, betas=(0.0, 0.9))),
        "rmsprop": moves(w0, by_torch(torch.optim.RMSprop, w0, grads, lr=0.1, alpha=0.9)),
    }[grafting]
    for a, b in zip(actual, peer, strict=True):
        assert float(a.norm()) == pytest.approx(float(b.norm()), rel=1e-10)


@pytest.mark.parametrize("frequency", [1, 4])
def test_soap_with_identity_basis_is_adam(frequency):
    w0, grads = normal(5, 5), sequence(5, 5)
    hypers: dict[str, Any] = {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-30}
    adam = diagonal.adam(w0, grads, **hypers)
    rest = diagonal.adam(w0, grads[1:], **hypers)
    plain: dict[str, Any] = {"weight_decay": 0.0, "precondition_frequency": frequency}
    assert_same(soap.soap(w0, grads, **hypers, **plain, identity_basis=True, include_current=True), adam)
    assert_same(soap.soap(w0, grads, **hypers, **plain, identity_basis=True), [w0, *rest])
    assert_same(soap.soap(w0, grads, **hypers, **plain, max_precondition_dim=4), [w0, *rest])


@pytest.mark.parametrize("frequency", [1, 3])
@pytest.mark.parametrize("include_current", [False, True])
def test_soap_rotates_with_its_coordinates(frequency, include_current):
    """W -> P W R^T for orthogonal P and R rotates the whole trajectory.

    When the current gradient is included its first projection is diagonal: what stands off the diagonal is
    rounding, and only eps keeps the ratio of two roundings out of the weight.
    """
    w0, grads = normal(5, 5), sequence(5, 5)
    p, r = orthogonal(5), orthogonal(5, seed=8)
    hypers: dict[str, Any] = {
        "lr": 0.05,
        "precondition_frequency": frequency,
        "include_current": include_current,
        "eps": 1e-4,
    }
    plain = soap.soap(w0, grads, **hypers)
    rotated = soap.soap(p @ w0 @ r.T, [p @ g @ r.T for g in grads], **hypers)
    assert_same(rotated, [p @ w @ r.T for w in plain], 1e-9)


@pytest.mark.parametrize("rule", [kl.kl_shampoo, kl.kl_soap])
def test_kl_rotates_with_its_coordinates(rule):
    w0, grads = normal(5, 5), sequence(5, 5)
    p, r = orthogonal(5), orthogonal(5, seed=8)
    plain = rule(w0, grads, lr=0.01, precondition_frequency=3)
    rotated = rule(p @ w0 @ r.T, [p @ g @ r.T for g in grads], lr=0.01, precondition_frequency=3)
    assert_same(rotated, [p @ w @ r.T for w in plain], 1e-9)


def test_kl_shampoo_with_fixed_bases_is_a_diagonal_method():
    """Every move divided by the momentum is a positive rank-one matrix."""
    w0, grads = normal(5, 4), sequence(5, 4)
    iterates = kl.kl_shampoo(w0, grads, lr=1.0, eps=0.0, weight_decay=0.0, fixed_bases=True)
    assert torch.equal(iterates[0], w0)
    m = torch.zeros_like(w0)
    for g, move in zip(grads[1:], moves(w0, iterates)[1:], strict=True):
        m = 0.9 * m + 0.1 * g
        ratio = -move / m
        values = torch.linalg.svdvals(ratio)
        assert float(ratio.min()) > 0
        assert float(values[1]) < 1e-8 * float(values[0])


def test_kl_soap_with_fixed_bases_is_adam_without_bias_correction():
    w0, grads = normal(5, 4), sequence(5, 4)
    actual = kl.kl_soap(w0, grads, lr=0.01, fixed_bases=True)
    m, v, w, expected = torch.zeros_like(w0), torch.zeros_like(w0), w0, [w0]
    for g in grads[1:]:
        m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g * g
        w = (w - 0.01 * m / (v.sqrt() + 1e-8)) * (1 - 0.01 * 0.01)
        expected.append(w)
    assert_same(actual, expected)


def test_kl_eigenvalues_are_clamped_from_below():
    """Vanishing gradients cannot make lam^(-1/2) exceed max(10, d)."""
    w0, grads = normal(4, 4), [normal(4, 4)] + [1e-9 * normal(4, 4, seed=t) for t in range(400)]
    hypers: dict[str, Any] = {
        "lr": 1.0,
        "betas": (0.0, 0.9),
        "eps": 0.0,
        "weight_decay": 0.0,
        "fixed_bases": True,
    }
    last = moves(w0, kl.kl_shampoo(w0, grads, **hypers))[-1]
    assert_same([last / (-100 * grads[-1])], [torch.ones_like(w0)], 1e-5)


def test_splus_starts_with_the_sign():
    w0, grads = normal(5, 7), sequence(5, 7, steps=1)
    iterates, averages = soap.splus(w0, grads, lr=0.1, weight_decay=0.1)
    e = 0.1 * 2 / 12
    assert_same(iterates, [(w0 - e * grads[0].sign()) * (1 - 0.1 * e)])
    assert_same(averages, iterates)


def test_splus_moves_by_an_orthogonally_rotated_sign():
    w0, grads = normal(5, 5), sequence(5, 5)
    iterates, _ = soap.splus(w0, grads, lr=0.1, weight_decay=0.0, precondition_frequency=2)
    for move in moves(w0, iterates):
        assert float(move.norm()) == pytest.approx(0.1 * 2 / 10 * 5, rel=1e-10)


# K-FAC


def spd(n: int, seed: int) -> Tensor:
    x = normal(n, 2 * n, seed=seed)
    return x @ x.T / (2 * n)


def test_kfac_without_damping_is_two_inverses():
    g, a, b = normal(4, 6), spd(4, 1), spd(6, 2)
    expected = torch.linalg.inv(a) @ g @ torch.linalg.inv(b)
    assert_same([kfac.kfac_direction(g, a, b, 0.0)], [expected], 1e-11)
    assert_same([kfac.kfac_direction_factored(g, a, b, 0.0)], [expected], 1e-11)


def test_kfac_without_damping_is_affine_invariant():
    """W = P W' R makes G' = P^T G R^T, A' = P^T A P, B' = R B R^T and U' = P^-1 U R^-1."""
    g, a, b = normal(4, 6), spd(4, 1), spd(6, 2)
    p = torch.eye(4, dtype=torch.float64) + 0.3 * normal(4, 4, seed=3)
    r = torch.eye(6, dtype=torch.float64) + 0.3 * normal(6, 6, seed=4)
    u = kfac.kfac_direction(g, a, b, 0.0)
    u_prime = kfac.kfac_direction(p.T @ g @ r.T, p.T @ a @ p, r @ b @ r.T, 0.0)
    assert_same([p @ u_prime @ r], [u], 1e-8)


def test_kfac_damping_forms_agree_on_multiples_of_the_identity():
    """On A = alpha I, B = beta I the factored form divides by (sqrt(alpha beta) + sqrt(damping))^2."""
    g = normal(4, 6)
    a, b = 2.0 * torch.eye(4, dtype=torch.float64), 0.5 * torch.eye(6, dtype=torch.float64)
    assert_same([kfac.kfac_direction(g, a, b, 0.09)], [g / 1.09])
    assert_same([kfac.kfac_direction_factored(g, a, b, 0.09)], [g / (1 + 0.3) ** 2])


def test_kl_clip_bounds_the_step():
    directions, grads = [normal(3, 4), normal(5)], [normal(3, 4, seed=1), normal(5, seed=2)]
    total = sum(float((u * g).sum()) for u, g in zip(directions, grads, strict=True))
    factor = kfac.kl_factor(directions, grads, lr=10.0, kappa=1e-3)
    assert factor < 1
    assert factor**2 * 100 * abs(total) == pytest.approx(1e-3)
    assert kfac.kl_factor(directions, grads, lr=1e-6, kappa=1e-3) == 1.0


def test_linear_statistics_append_the_bias_as_an_input_of_one():
    x, d = normal(9, 3), normal(9, 2, seed=1)
    a, b = kfac.linear_statistics(x, d, bias=True)
    assert a.shape == (2, 2)
    assert b.shape == (4, 4)
    assert float(b[3, 3]) == pytest.approx(1.0)
    assert_same([b[3, :3]], [x.mean(dim=0)])


# Scion


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5)])
def test_scion_directions_have_unit_norm(shape):
    m, n = shape
    d = normal(*shape)

    def u(norm: str) -> Tensor:
        return scion.scion_direction(d, norm, "svd")

    assert float(torch.linalg.matrix_norm(u("spectral"), 2)) == pytest.approx(math.sqrt(m / n))
    assert float(torch.linalg.matrix_norm(u("spectral_max"), 2)) == pytest.approx(max(1, math.sqrt(m / n)))
    assert float(u("sign").abs().max()) == pytest.approx(1 / n)
    assert float(u("sign_raw").abs().max()) == 1
    assert_same([u("col").norm(dim=0)], [torch.full((n,), math.sqrt(m), dtype=torch.float64)])
    assert_same([u("col_normalized") * n], [u("col")])
    assert_same([u("row_raw").norm(dim=1)], [torch.ones(m, dtype=torch.float64)])
    assert_same([u("row") * math.sqrt(n)], [u("row_raw")])
    assert float(u("bias_rms").pow(2).mean()) == pytest.approx(1)
    for norm in ("spectral", "spectral_max", "sign", "sign_raw", "col", "col_normalized", "row", "row_raw"):
        assert float((u(norm) * d).sum()) > 0


def test_scion_conv_is_spectral_over_the_kernel_area():
    d = normal(6, 4, 3, 3)
    expected = math.sqrt(6 / 4) / 9 * msign(d.reshape(6, 36)).reshape(d.shape)
    assert_same([scion.scion_direction(d, "auto", "svd")], [expected])
    d = normal(6, 4, 5)
    expected = math.sqrt(6 / 4) / 5 * msign(d.reshape(6, 20)).reshape(d.shape)
    assert_same([scion.scion_direction(d, "auto", "svd")], [expected])


def test_constrained_scion_stays_in_its_ball():
    w0 = torch.zeros(4, 6, dtype=torch.float64)
    for w in scion.scion(w0, sequence(4, 6), lr=0.3, radius=2.0, constrained=True, orthogonalizer="svd"):
        assert float(torch.linalg.matrix_norm(w, 2)) <= 2.0 * math.sqrt(4 / 6) + 1e-12


@pytest.mark.parametrize("constrained", [False, True])
def test_clipped_scion_with_small_rho_is_scion(constrained):
    w0 = [normal(4, 6), normal(4, seed=1)]
    grads = [list(pair) for pair in zip(sequence(4, 6), sequence(4, seed=50), strict=True)]
    norms, radii = ["spectral", "bias_rms"], [2.0, 0.5]
    clipped = scion.clipped_scion(
        w0, grads, 0.1, 1e-12, norms=norms, radii=radii, constrained=constrained, orthogonalizer="svd"
    )
    if constrained:  # a full step needs a positive Frank-Wolfe gap, which small weights have
        w0 = [0 * w for w in w0]
        clipped = scion.clipped_scion(
            w0, grads[:1], 0.1, 1e-12, norms=norms, radii=radii, constrained=True, orthogonalizer="svd"
        )
    for layer in range(2):
        layer_grads = [g[layer] for g in grads[: len(clipped)]]
        expected = scion.scion(
            w0[layer], layer_grads, 0.1, 0.9, norms[layer], radii[layer], constrained, "svd"
        )
        assert_same([step[layer] for step in clipped], expected)


def test_clipped_scion_with_large_rho_is_steepest_descent():
    """Far from the clip the step is S / rho: dual norm of the whole network times the unit directions."""
    w0 = [normal(4, 6), normal(4, seed=1)]
    grads = [list(pair) for pair in zip(sequence(4, 6), sequence(4, seed=50), strict=True)]
    norms, rho = ["spectral", "bias_rms"], 1e6
    (first,) = scion.clipped_scion(w0, grads[:1], 1.0, rho, 0.0, norms, orthogonalizer="svd")
    g, h = grads[0]
    dual = math.sqrt(4 / 6) * float(torch.linalg.svdvals(g).sum()) + math.sqrt(4) * float(h.norm())
    assert_same([(w0[0] - first[0]) * rho], [dual * math.sqrt(4 / 6) * msign(g)], 1e-6)
    assert_same([(w0[1] - first[1]) * rho], [dual * 2 * h / h.norm()], 1e-6)
