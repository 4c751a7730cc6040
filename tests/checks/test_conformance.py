"""The checks pass on correct optimizers and turn red, each for its own reason, on broken ones."""

from __future__ import annotations

import pytest
import torch

from steepest.checks import all_checks, check_optimizer

from .broken import BROKEN
from .plain import PlainMomentum

TORCH = (
    "SGD",
    "Adam",
    "AdamW",
    "Adagrad",
    "Adadelta",
    "Adafactor",
    "Adamax",
    "ASGD",
    "LBFGS",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
)


def test_the_plain_optimizer_satisfies_the_strict_contract():
    report = check_optimizer(PlainMomentum, strict=True)
    assert report.passed, str(report)
    skipped = [result.name for result in report.results if result.status == "skip"]
    assert skipped == ["paths.foreach_agrees"], "fused is its fast path"


@pytest.mark.parametrize("cls", BROKEN, ids=lambda cls: cls.__name__)
def test_a_broken_optimizer_turns_exactly_its_checks_red(cls):
    report = check_optimizer(cls, strict=True)
    assert {failure.name for failure in report.failures} == BROKEN[cls], str(report)


def test_every_clause_is_broken_by_some_class():
    clause = {check.name: check.clause for check in all_checks()}
    assert {clause[name] for red in BROKEN.values() for name in red} == set(range(1, 13))


@pytest.mark.no_cover  # other tests take the same lines
@pytest.mark.parametrize("name", TORCH)
def test_optimizers_of_torch_pass_what_they_claim(name):
    report = check_optimizer(getattr(torch.optim, name))
    assert report.passed, str(report)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        ("Adam", {"amsgrad": True, "weight_decay": 0.1}),
        ("Adagrad", {"foreach": True}),
        ("RMSprop", {"centered": True, "momentum": 0.5}),
    ],
)
def test_options_of_torch_optimizers_pass_too(name, kwargs):
    report = check_optimizer(getattr(torch.optim, name), **kwargs)
    assert report.passed, str(report)


def test_a_defect_of_the_fused_cpu_path_of_torch_is_found():
    report = check_optimizer(torch.optim.AdamW, fused=True)
    layouts = {"shapes.noncontiguous", "shapes.channels_last", "shapes.expanded_gradient"}
    assert {failure.name for failure in report.failures} <= layouts, str(report)


def noted(cls: type[torch.optim.Optimizer], name: str) -> str:
    (result,) = [result for result in check_optimizer(cls, only=name).results if result.name == name]
    assert result.status == "note"
    return result.message


def test_known_limits_of_torch_are_visible_as_notes():
    assert "(20, 18) parameter react otherwise" in noted(torch.optim.Muon, "precision.float64_gradients")
    assert "state['mu_product'] of a torch.bfloat16" in noted(torch.optim.NAdam, "state.low_precision_bits")
    assert "gradients of norm 1e+30" in noted(torch.optim.Adafactor, "scale.huge_gradients")
    assert "torch.float16 weights" in noted(torch.optim.Adam, "scale.tiny_gradients")


def test_documented_exceptions_of_torch_count_in_strict_mode():
    name = "step.lr_zero_does_not_move"
    (ordinary,) = check_optimizer(torch.optim.Rprop, only=name).results
    (strict,) = check_optimizer(torch.optim.Rprop, only=name, strict=True).results
    assert ordinary.status == "skip"
    assert "initial step size" in ordinary.message
    assert strict.status == "fail"
