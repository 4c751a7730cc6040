"""Invariance: exact changes of coordinates, known cases, classes of third parties, errors, the command."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import steepest
from steepest import EMA, Diagonal, Spectral, Steepest
from steepest.checks import invariance, invariance_table, main_invariance
from steepest.checks.invariances.predictions import PREDICTIONS, contenders
from steepest.checks.invariances.problem import Layer, Problem
from steepest.checks.invariances.table import Row, markdown, surprises
from steepest.checks.invariances.transforms import LOSS_FACTOR, TRANSFORMS, Entrywise, Sided
from steepest.cli import main

DOCS = Path(__file__).parents[2] / "docs" / "invariance.md"
QUICK = {"iterations": 4, "models": "linear"}


def layers(problem: Problem) -> list[Layer]:
    return problem.layers


class Plain(torch.optim.Optimizer):
    """W - lr G / |G|^power entrywise: SGD for power 0, and invariant to scales for power 2."""

    def __init__(self, params, lr=0.1, power=2.0):
        super().__init__(params, {"lr": lr, "power": power})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = closure() if closure else None
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * p.grad / p.grad.abs() ** group["power"]
        return loss


class Stubborn(Plain):
    """Refuses eps = 0, and never moves."""

    def __init__(self, params, lr=0.1, eps=1e-8):
        if not eps > 0:
            raise ValueError(f"eps must be > 0, got {eps}")
        self.eps = eps
        super().__init__(params, lr)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        return closure() if closure else None


class Explosive(Plain):
    """Leaves finite numbers whatever the learning rate."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = closure() if closure else None
        for group in self.param_groups:
            for p in group["params"]:
                p.fill_(math.nan)
        return loss


# The changes of coordinates


@pytest.mark.parametrize("model", ["linear", "mlp"])
@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_the_transformed_problem_is_the_same_problem(name: str, model: str) -> None:
    plain, other = Problem(model), Problem(model, TRANSFORMS[name])
    batch = plain.batch()
    torch.testing.assert_close(other.batch(), batch, rtol=0, atol=0)
    torch.testing.assert_close(other.position(), plain.position(), rtol=1e-13, atol=1e-14)
    factor = LOSS_FACTOR if name == "loss" else 1.0
    torch.testing.assert_close(other.loss(batch), factor * plain.loss(batch), rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", list(TRANSFORMS))
def test_gradients_follow_the_chain_rule(name: str) -> None:
    plain, other = Problem("mlp"), Problem("mlp", TRANSFORMS[name])
    for problem in (plain, other):
        problem.loss(problem.batch()).backward()
    for one, two in zip(layers(plain), layers(other), strict=True):
        g, new, change = one.linear.weight.grad, two.linear.weight.grad, two.change
        assert g is not None
        if isinstance(change, Entrywise):
            g = change.scale * g
        elif isinstance(change, Sided):
            g = torch.linalg.inv(change.left).mT @ g @ torch.linalg.inv(change.right).mT
        else:
            g = LOSS_FACTOR * g
        torch.testing.assert_close(new, g, rtol=1e-12, atol=1e-15)


def test_the_changes_are_what_their_names_say() -> None:
    generator = torch.Generator().manual_seed(3)
    maps = {name: transform.draw(5, 4, 1.5, generator) for name, transform in TRANSFORMS.items()}
    entries, rows, columns = maps["entries"], maps["rows"], maps["columns"]
    assert isinstance(entries, Entrywise)
    assert entries.scale.shape == (5, 4)
    assert entries.scale.log().abs().max() <= 1.5
    w = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    assert torch.linalg.matrix_rank(rows.new(w) / w) == 1
    torch.testing.assert_close((rows.new(w) / w).std(1), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close((columns.new(w) / w).std(0), torch.zeros(4, dtype=torch.float64))
    affine, rotation = maps["affine"], maps["rotation"]
    assert isinstance(affine, Sided)
    assert isinstance(rotation, Sided)
    assert 2 < torch.linalg.cond(affine.left) <= math.exp(3) + 1e-9
    torch.testing.assert_close(rotation.left @ rotation.left.mT, torch.eye(5, dtype=torch.float64))
    torch.testing.assert_close(rotation.right @ rotation.right.mT, torch.eye(4, dtype=torch.float64))
    for change in maps.values():
        torch.testing.assert_close(change.old(change.new(w)), w, rtol=1e-12, atol=1e-13)


def test_gradients_have_full_rank() -> None:
    for model in ("linear", "mlp"):
        problem = Problem(model)
        problem.loss(problem.batch()).backward()
        for layer in layers(problem):
            s = torch.linalg.svdvals(layer.linear.weight.grad)
            assert s[-1] > 1e-6 * s[0]


# Optimizers


@pytest.mark.parametrize("row", list(contenders()))
def test_every_public_method_does_as_predicted(row: str) -> None:
    # Long enough for a refresh of the bases.
    [found] = invariance_table([row], iterations=13, models="linear")
    assert found.prediction is not None, f"{row} has no prediction"
    assert surprises([found]) == []
    assert found.measured is not None
    for name in TRANSFORMS:
        value = found.measured.deviation(name)
        if found.prediction.verdict(name) == "yes":
            assert value is not None
            assert value <= 1e-11  # the threshold of 1e-8 is far from what rounding does


def test_every_public_method_has_a_row() -> None:
    public = {
        name
        for name in steepest.__all__
        if isinstance(getattr(steepest, name), type)
        and issubclass(getattr(steepest, name), torch.optim.Optimizer)
    }
    assert {"Muon", "MuAdamSANIA", "KFAC", "ANDI"} <= public
    assert public <= set(contenders()) == set(PREDICTIONS)


def test_a_network_is_as_invariant_as_a_matrix() -> None:
    options = {"iterations": 30, "models": "mlp"}
    assert _worst(invariance("MuAdamSANIA", transforms=("entries", "rows", "columns"), **options)) <= 1e-10
    assert _worst(invariance("AdamSANIA", transforms="entries", **options)) <= 1e-10
    assert _worst(invariance("KFAC", transforms="affine", **options)) <= 1e-10
    assert _worst(invariance("Adam", transforms="entries", **options)) > 0.1


def test_eps_breaks_scale_invariance() -> None:
    found = invariance("AdamSANIA", transforms="entries", eps=1e-3, **QUICK)
    assert found.verdict("entries") == "no"


def test_inexact_polar_factors_are_still_invariant_to_rotations() -> None:
    found = invariance("Muon", orthogonalizer="newton_schulz", transforms="rotation", **QUICK)
    assert found.verdict("rotation") == "yes"


def test_compositions_are_measured_too() -> None:
    found = invariance(
        Steepest,
        norm=Spectral("svd"),
        preconditioner=Diagonal(power=1, eps=0.0),
        momentum=EMA(),
        transforms=("rows", "rotation"),
        **QUICK,
    )
    assert (found.verdict("rows"), found.verdict("rotation")) == ("yes", "no")


def test_wrappers() -> None:
    decayed = {"weight_decay": 10.0, "transforms": ("entries", "rotation"), **QUICK}
    cautious = invariance(steepest.cautious(steepest.MuAdamSANIA), **decayed)
    assert (cautious.verdict("entries"), cautious.verdict("rotation")) == ("yes", "no")
    plain = invariance(steepest.Muon, **decayed)
    assert (plain.verdict("entries"), plain.verdict("rotation")) == ("no", "yes")
    held = invariance(steepest.hyperball(steepest.Muon), transforms=("rotation", "affine"), **QUICK)
    assert (held.verdict("rotation"), held.verdict("affine")) == ("yes", "no")


def test_a_class_of_a_third_party() -> None:
    found = invariance(Plain, transforms=("entries", "rotation"), **QUICK)
    assert (found.verdict("entries"), found.verdict("rotation")) == ("yes", "no")
    found = invariance(Plain, power=0.0, transforms=("entries", "rotation"), **QUICK)
    assert (found.verdict("entries"), found.verdict("rotation")) == ("no", "yes")
    assert found.arguments == {"power": 0.0}
    [row] = invariance_table([f"{__name__}:Plain"], transforms="rows", **QUICK)
    assert (row.name, row.prediction, row.surprises()) == ("Plain", None, [])


def test_the_first_step_has_the_chosen_length() -> None:
    for name in ("SGD", "MADGRAD", "SOAP"):
        found = invariance(name, iterations=2, models="linear", transforms="loss")
        problem = Problem("linear")
        cls = torch.optim.SGD if name == "SGD" else getattr(steepest, name)
        optimizer = cls(problem.parameters(), lr=found.lr["linear"], **found.arguments)
        start, size = problem.position(), 0.0
        while size == 0:
            optimizer.zero_grad()
            problem.loss(problem.batch()).backward()
            optimizer.step()
            size = ((problem.position() - start).norm() / start.norm()).item()
        assert size == pytest.approx(0.01, rel=0.02)


def test_a_given_learning_rate_is_kept() -> None:
    found = invariance("SGD", lr=0.5, transforms="rotation", **QUICK)
    assert (found.lr, found.arguments["lr"]) == ({}, 0.5)


def test_results_repeat_and_leave_the_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    one, two = (invariance("Adam", transforms="affine", **QUICK) for _ in range(2))
    assert one == two
    assert torch.equal(torch.random.get_rng_state(), before)
    assert invariance("Adam", transforms="affine", seed=1, **QUICK).deviations != one.deviations


# Errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"transforms": "rotations"}, r"transforms must be among .*'rotations'; did you mean 'rotation'"),
        ({"models": "conv"}, "models must be among linear, mlp, pixels, got 'conv'"),
        ({"models": ()}, "models must be among .* got none"),
        ({"iterations": 1}, "iterations must be an integer >= 2, got 1"),
        ({"strength": 0.0}, r"strength must be in \(0, 5\], got 0.0"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        invariance("Adam", **arguments)


def test_bad_targets() -> None:
    with pytest.raises(ValueError, match="did you mean 'Muon'"):
        invariance("Muom")
    with pytest.raises(TypeError, match="must be an optimizer class or its name"):
        invariance(int)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="rho"):
        invariance("ClippedScion", **QUICK)


def test_optimizers_that_cannot_be_measured() -> None:
    with pytest.raises(RuntimeError, match="Stubborn does not move"):
        invariance(Stubborn, **QUICK)
    with pytest.raises(RuntimeError, match="SGD does not move"):
        invariance("SGD", lr=0.0, **QUICK)
    with pytest.raises(RuntimeError, match="Explosive does not stay finite for 4 steps on the linear"):
        invariance(Explosive, **QUICK)


# Table and command


def test_disagreements_are_named_and_marked() -> None:
    [sgd] = invariance_table(["SGD"], **QUICK)
    wrong = Row("Mine", sgd.measured, PREDICTIONS["Adam"])
    assert wrong.surprises() == ["rotation", "loss"]
    assert wrong.cell("rotation").endswith(" no!")
    assert wrong.cell("rows").endswith(" no")
    assert re.fullmatch(r"Mine, rotation: measured \S+ \(yes\), predicted no", surprises([wrong])[0])
    assert "| Mine |" in markdown([wrong])


def test_one_failure_does_not_stop_the_table() -> None:
    rows = invariance_table(["SGD", f"{__name__}:Stubborn"], transforms="rotation", **QUICK)
    assert rows[0].measured is not None
    assert rows[1].measured is None
    assert "does not move" in rows[1].error


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "sub" / "picture.png", tmp_path / "table.md"]
    arguments = ["invariance", "SGD", "KFAC(input)", "--steps", "3", "--model", "linear"]
    assert main([*arguments, "--out", str(files[0]), "--out", str(files[1])]) == 0
    shown = capsys.readouterr()
    assert "KFAC(input)" in shown.out
    assert "yes" in shown.out
    assert "[2/2] KFAC(input)" in shown.err
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert files[1].read_text().startswith("| method | entries |")
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found] == ["SGD", "KFAC(input)"]
    assert found[0]["measured"]["verdicts"]["rotation"] == "yes"
    assert found[1]["measured"]["deviations"]["entries"] == {"linear": None}
    assert found[1]["predicted"]["entries"] == "undefined"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Muom"], "no optimizer is named 'Muom'; did you mean 'Muon'?"),
        (["SGD", "--model", "conv"], "models must be among"),
        (["SGD", "--out", "table.gif"], "--out must end in .png (picture) or .md (table), got 'table.gif'"),
        (["SGD", "--kwargs", "{"], "kwargs must be a JSON object"),
        (["SGD", "--kwargs", '{"lrr": 1}'], "lrr"),
    ],
)
def test_command_errors_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["invariance", *arguments, "--steps", "2"]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("[")]
    assert len(error) == 1
    assert message in error[0]


def test_command_exit_code_tells_of_disagreement(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PREDICTIONS, "SGD", PREDICTIONS["Adam"])
    assert main_invariance(["SGD"], steps=2, models=["linear"]) == 1
    assert "Disagrees: SGD, rotation: measured" in capsys.readouterr().out


def test_documentation_shows_every_method_as_predicted() -> None:
    lines = [line.strip("| \n").split(" | ") for line in DOCS.read_text().splitlines() if line[:2] == "| "]
    table = {cells[0]: cells[1:] for cells in lines if len(cells) == 1 + len(TRANSFORMS)}
    assert table.pop("method") == list(TRANSFORMS)
    assert list(table) == list(PREDICTIONS)
    for method, cells in table.items():
        for name, cell in zip(TRANSFORMS, cells, strict=True):
            expected = PREDICTIONS[method].verdict(name)
            assert cell == "-" if expected == "undefined" else cell.endswith(f" {expected}")
    reasons = {cells[0]: cells[1] for cells in lines if len(cells) == 2}
    assert {name: reasons[name] for name in PREDICTIONS} == {n: p.why for n, p in PREDICTIONS.items()}


def _worst(found) -> float:
    return max(found.deviation(name) for name in found.deviations)
