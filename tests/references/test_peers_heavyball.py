"""The library against heavyball 3.2, where it implements the same rule, and what it does differently.

Everything runs in float64 and uncompiled. heavyball's learning rate passes through torch's default dtype and
its state through ``storage_dtype``: both are set to float64. It has no Shampoo.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from optimizers.trajectories import MATRICES, assert_same, deviation, follow, gradients, start
from references.common import QUINTIC, msign, polynomial_polar
from steepest import KLSOAP, SOAP, AdamW, HeavyBall, KLShampoo, Muon, Scion, Steepest

heavyball = pytest.importorskip("heavyball")
utils = heavyball.utils

SQUARE = (9, 9)
W0, GRADS = start(SQUARE), gradients(SQUARE)
NO_EPS = 1e-300
"""As good as 0, which heavyball would divide by."""

ADAM: dict[str, Any] = {"lr": 0.05, "betas": (0.9, 0.95), "weight_decay": 0.1}
MUON: dict[str, Any] = {"lr": 0.05, "weight_decay": 0.1}
ROTATED: dict[str, Any] = {"lr": 0.05, "betas": (0.9, 0.95), "shampoo_beta": 0.8, "weight_decay": 0.0}


@pytest.fixture(autouse=True)
def plain_float64(monkeypatch):
    """No compilation, which takes minutes, and float64 where heavyball asks for the default dtype."""
    monkeypatch.setattr(utils, "compile_mode", None)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(previous)


@pytest.fixture
def exact_polar(monkeypatch):
    """heavyball takes its Newton-Schulz for every rectangular matrix, whatever ``zeroth_power_mode`` says."""
    monkeypatch.setattr(utils, "zeropower_via_newtonschulz5", lambda x, steps: msign(x))


@pytest.fixture
def unlifted(monkeypatch):
    """heavyball adds 1e-8 of the largest eigenvalue to S before Q <- QR(S Q); this leaves 64 d roundings."""
    refresh = utils.get_orthogonal_matrix_QR

    def without_floor(*args, **kwargs):
        return refresh(*args, **{**kwargs, "floor": 0.0})

    monkeypatch.setattr(utils, "get_orthogonal_matrix_QR", without_floor)


def peer(
    make: Any,
    w0: Tensor = W0,
    grads: Sequence[Tensor] = GRADS,
    skipped_call_counts: bool = True,
    **kwargs: Any,
) -> list[Tensor]:
    """heavyball's iterates; bases can be made due at the count of calls that move."""
    parameter = torch.nn.Parameter(w0.clone())
    optimizer = make([parameter], storage_dtype="float64", **kwargs)
    if not skipped_call_counts:
        optimizer.inner_group["cumulative_prob"] = -1 / kwargs["precondition_frequency"]
    iterates = []
    for g in grads:
        parameter.grad = g.clone()
        optimizer.step()
        iterates.append(parameter.detach().clone())
    return iterates


def test_adamw():
    ours = follow(AdamW, W0, GRADS, eps=0.0, **ADAM)
    assert_same(peer(heavyball.AdamW, eps=NO_EPS, **ADAM), ours)


def test_sgd_with_momentum():
    ours = follow(Steepest, W0, GRADS, lr=0.05, momentum=HeavyBall(0.9), weight_decay=0.1)
    assert_same(peer(heavyball.SGD, lr=0.05, beta=0.9, weight_decay=0.1), ours)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize(
    ("mode", "orthogonalizer"), [("svd", "svd"), ("legacy_newtonschulz", "newton_schulz")]
)
def test_muon(monkeypatch, mode, orthogonalizer, nesterov):
    monkeypatch.setattr(utils, "zeroth_power_mode", mode)
    ours = follow(Muon, W0, GRADS, momentum=0.9, nesterov=nesterov, orthogonalizer=orthogonalizer, **MUON)
    theirs = peer(heavyball.Muon, betas=(0.9, 0.99), nesterov=nesterov, heavyball_momentum=nesterov, **MUON)
    assert_same(theirs, ours)


@pytest.mark.usefixtures("exact_polar")
@pytest.mark.parametrize("shape", [*MATRICES, (4, 5, 3, 3)])
def test_muon_on_any_shape(shape):
    w0, grads = start(shape), gradients(shape)
    ours = follow(Muon, w0, grads, momentum=0.9, orthogonalizer="svd", **MUON)
    theirs = peer(heavyball.Muon, w0, grads, betas=(0.9, 0.99), heavyball_momentum=True, **MUON)
    assert_same(theirs, ours)


@pytest.mark.usefixtures("exact_polar")
@pytest.mark.parametrize("shape", [*MATRICES, (4, 5, 3, 3), (6, 7, 3), (7,), ()])
def test_scion(monkeypatch, shape):
    monkeypatch.setattr(utils, "scion_auto_init_param_", lambda *args, **kwargs: None)
    w0, grads = start(shape), gradients(shape)
    ours = follow(Scion, w0, grads, lr=0.05, momentum=0.9, radius=3.0, orthogonalizer="svd")
    assert_same(peer(heavyball.Scion, w0, grads, lr=0.05, betas=(0.9, 0.99), scale=3.0), ours)


@pytest.mark.usefixtures("unlifted")
@pytest.mark.parametrize("frequency", [1, 4, 8])
@pytest.mark.parametrize(("shape", "limit"), [(SQUARE, 9), ((5, 8), 5), ((8, 5), 5)])
def test_soap(shape, limit, frequency):
    w0, grads = start(shape), gradients(shape)
    options = {**ROTATED, "precondition_frequency": frequency}
    ours = follow(SOAP, w0, grads, eps=0.0, max_precondition_dim=limit, **options)
    options |= {"eps": NO_EPS, "max_precond_dim": limit, "merge_dims": False}
    theirs = peer(heavyball.SOAP, w0, grads, skipped_call_counts=False, **options)
    assert_same(theirs, ours, tolerance=1e-10)  # refreshes enlarge the 64 d roundings that are left


class TestKnownDifferences:
    def test_gradients_are_consumed(self):
        parameter = torch.nn.Parameter(W0.clone())
        parameter.grad = GRADS[0].clone()
        heavyball.AdamW([parameter], lr=0.05).step()
        assert parameter.grad is None

    def test_learning_rates_are_rounded_to_the_default_dtype(self):
        torch.set_default_dtype(torch.float32)
        rounded = peer(heavyball.SGD, lr=0.05, beta=0.9)
        exact = follow(Steepest, W0, GRADS, lr=0.05, momentum=HeavyBall(0.9))
        assert 1e-9 < deviation(rounded, exact) < 1e-7

    def test_eps_is_a_floor_of_the_root_instead_of_an_addend(self):
        loud = [g + 2 * g.sign() for g in GRADS]  # no entry's root is below 1, so a floor of 1 is never met
        without = follow(AdamW, W0, loud, eps=0.0, **ADAM)
        assert_same(peer(heavyball.AdamW, W0, loud, eps=1.0, **ADAM), without)
        assert deviation(follow(AdamW, W0, loud, eps=1.0, **ADAM), without) > 1e-2

    def test_muons_nesterov_step_on_averages_adds_the_whole_gradient(self, monkeypatch):
        monkeypatch.setattr(utils, "zeroth_power_mode", "svd")
        w, average, restated = W0, torch.zeros_like(W0), []
        for g in GRADS:
            average = 0.9 * average + 0.1 * g
            w = w - 0.05 * msign(average + g)
            restated.append(w)
        theirs = peer(heavyball.Muon, lr=0.05, betas=(0.9, 0.99))
        assert_same(theirs, restated)
        ours = follow(Muon, W0, GRADS, lr=0.05, momentum=0.9, orthogonalizer="svd")
        assert deviation(theirs, ours) > 1e-2

    @pytest.mark.parametrize("mode", ["newtonschulz", "svd"])
    def test_muons_polynomial_has_other_coefficients(self, monkeypatch, mode):
        monkeypatch.setattr(utils, "zeroth_power_mode", mode)  # heeded for square matrices alone
        coefficients = [
            (4.0848, -6.8946, 2.9270),
            (3.9505, -6.3029, 2.6377),
            (3.7418, -5.5913, 2.3037),
            (2.8769, -3.1427, 1.2046),
            (2.8366, -3.0525, 1.2012),
        ]
        shape = (9, 20)
        w0, grads = start(shape), gradients(shape)
        w, buffer, restated = w0, torch.zeros_like(w0), []
        for g in grads:
            buffer = 0.9 * buffer + g
            w = w - 0.05 * polynomial_polar(0.9 * buffer + g, coefficients, 1.0)
            restated.append(w)
        options = {"lr": 0.05, "betas": (0.9, 0.99), "heavyball_momentum": True}
        assert_same(peer(heavyball.Muon, w0, grads, **options), restated)
        exact = msign(w0)
        errors = [
            float((polynomial_polar(w0, c, 1.0) - exact).norm() / exact.norm())
            for c in (coefficients, QUINTIC)
        ]
        assert errors[0] < 0.05 < 0.1 < errors[1]

    def test_scion_replaces_the_weight_at_its_first_step(self):
        step = 0.05 * msign(GRADS[0])
        first = peer(heavyball.Scion, W0, GRADS[:1], lr=0.05)[0]
        other = peer(heavyball.Scion, start(SQUARE, seed=7), GRADS[:1], lr=0.05)[0]
        assert torch.equal(first, other)
        replaced = first + step
        assert float((replaced @ replaced.mT - torch.eye(9)).abs().max()) < 0.2  # their polar factor's error

    def test_soap_lifts_the_statistics_before_every_refresh(self):
        options = {**ROTATED, "precondition_frequency": 1}
        theirs = peer(heavyball.SOAP, skipped_call_counts=False, eps=NO_EPS, merge_dims=False, **options)
        assert 1e-10 < deviation(theirs, follow(SOAP, W0, GRADS, eps=0.0, **options)) < 1e-7

    @pytest.mark.usefixtures("unlifted")
    def test_soaps_skipped_call_counts_towards_the_next_refresh(self):
        options = {**ROTATED, "precondition_frequency": 4}
        theirs = peer(heavyball.SOAP, eps=NO_EPS, merge_dims=False, **options)
        ours = follow(SOAP, W0, GRADS, eps=0.0, **options)
        assert_same(theirs[:4], ours[:4], tolerance=1e-10)
        assert deviation(theirs[4:5], ours[4:5]) > 1e-4

    def test_refreshes_are_due_by_a_sum_of_rounded_fractions(self):
        group: dict[str, Any] = {}
        due = [utils.psgd_should_update(group, 1 / 10) for _ in range(11)]
        assert due == [False] * 10 + [True]

    @pytest.mark.usefixtures("unlifted")
    def test_soap_decays_before_its_step(self):
        options = {**ROTATED, "precondition_frequency": 1, "weight_decay": 2.0}
        ours = follow(SOAP, W0, GRADS, eps=0.0, **options)
        theirs = peer(heavyball.SOAP, eps=NO_EPS, merge_dims=False, **options)
        undecayed = [W0, *follow(SOAP, W0, GRADS, eps=0.0, **{**options, "weight_decay": 0.0})]
        before, after, w, u = [], [], W0, W0
        for old, new in itertools.pairwise(undecayed):
            moves = bool((new != old).any())  # the first call neither moves nor decays
            w = 0.9 * w + (new - old) if moves else w
            u = 0.9 * (u + (new - old)) if moves else u
            before.append(w)
            after.append(u)
        assert_same(ours, after, tolerance=1e-10)
        assert_same(theirs, before, tolerance=1e-10)

    def test_klsoap_is_bias_corrected_and_its_eigenvalues_are_those_of_the_statistics(self):
        ours = follow(KLSOAP, W0, GRADS, eps=1e-30, **ROTATED)
        theirs = peer(heavyball.KLSOAP, eps=1e-30, merge_dims=False, **ROTATED)
        corrected = (ours[1] - W0) * 0.2**0.5 / 0.1  # sqrt(1 - b) / (1 - b1)
        assert_same([W0, theirs[1]], [W0, W0 + corrected], tolerance=1e-10)  # same first bases
        assert deviation(theirs[2:3], ours[2:3]) > 1e-2

    def test_klshampoo_starts_from_a_multiple_of_the_identity_instead_of_the_first_gradient(self):
        ours = follow(KLShampoo, W0, GRADS, eps=1e-30, **ROTATED)
        theirs = peer(heavyball.KLShampoo, eps=1e-30, merge_dims=False, dampening=0.0, **ROTATED)
        assert_same([W0, theirs[1]], [W0, ours[1]], tolerance=1e-10)  # lam = 0.1 for both, in any basis
        assert deviation(theirs[2:3], ours[2:3]) > 1e-3

    def test_klshampoo_adds_noise_to_its_statistics(self):
        torch.manual_seed(0)
        options = {"eps": 1e-30, "merge_dims": False, **ROTATED}
        first, second = (peer(heavyball.KLShampoo, dampening=1e-3, **options) for _ in range(2))
        assert not torch.equal(first[-1], second[-1])
        assert heavyball.KLShampoo([torch.nn.Parameter(W0.clone())]).defaults["dampening"] == 1e-9
