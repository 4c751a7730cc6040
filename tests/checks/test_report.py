"""The report: what a reader sees, what a program reads, and how third parties use it."""

from __future__ import annotations

import json
import re

import pytest
import torch

from steepest.checks import CLAUSES, CheckReport, CheckResult, all_checks, check_optimizer

from .broken import DecaysIntoGradient, HiddenFloat32, NeedsADimension
from .plain import PlainMomentum


class Exploding(PlainMomentum):
    def advance(self) -> None:
        raise KeyError("no such buffer")


def test_a_failure_is_explained_in_two_lines():
    report = check_optimizer(DecaysIntoGradient, lr=0.1, only=["step", "repr"])
    text = str(report)
    lines = text.splitlines()
    name = f"{DecaysIntoGradient.__module__}.DecaysIntoGradient(lr=0.1)"
    assert re.fullmatch(re.escape(name) + r": FAILED \(ordinary\): 7 passed, 1 failed, \d+\.\d s", lines[0])
    assert f"   7  {'step.grad_unchanged':<26}  FAIL" in lines
    assert f"   1  {'repr':<26}  pass" in lines
    start = lines.index("Failures (1)")
    assert lines[start + 1] == "  step.grad_unchanged (clause 7)"
    assert lines[start + 2].startswith("      expected p.grad to be unchanged by step(); it changed by ")
    assert lines[start + 2].endswith(" ({'weight_decay': 0.1})")
    assert lines[start + 3].startswith("      hint: work on a copy")
    assert len(lines) == start + 4
    assert not report.passed
    assert [failure.name for failure in report.failures] == ["step.grad_unchanged"]


def test_an_exception_is_one_line_in_the_table_and_a_traceback_in_the_details():
    report = check_optimizer(NeedsADimension, only="shapes.scalar")
    (result,) = [result for result in report.results if result.name == "shapes.scalar"]
    assert result.status == "fail"
    expected, raised = result.message.splitlines()
    assert expected == "expected: A parameter of shape () trains, or is refused by the constructor"
    assert re.fullmatch(r"it raised IndexError: .* \(broken\.py:\d+\)", raised)
    assert "Traceback" in result.details
    assert "Traceback" not in str(report)


def test_a_class_that_cannot_step_fails_once_and_skips_the_rest():
    report = check_optimizer(Exploding)
    assert [failure.name for failure in report.failures] == ["step.runs"]
    assert "it raised KeyError: 'no such buffer' (test_report.py:" in report.failures[0].message
    assert report.counts()["skip"] == len(all_checks()) - 1
    assert {result.message for result in report.results[1:]} == {"not run: step.runs failed"}


def test_the_failing_first_step_is_shown_even_if_other_checks_were_asked_for():
    report = check_optimizer(Exploding, only="repr")
    assert [result.name for result in report.results] == ["step.runs", "repr"]
    assert not report.passed


def test_strict_checks_are_notes_unless_asked_for():
    ordinary = check_optimizer(HiddenFloat32, only="precision")
    strict = check_optimizer(HiddenFloat32, only="precision", strict=True)
    assert ordinary.passed
    assert ordinary.counts() == {"pass": 3, "fail": 0, "note": 1, "skip": 0}
    assert "1 strict not met (not counted)" in str(ordinary)
    assert "Strict checks not met; they count only with strict=True (1)" in str(ordinary)
    assert not strict.passed
    assert strict.counts() == {"pass": 3, "fail": 1, "note": 0, "skip": 0}


def test_what_a_class_does_not_claim_is_skipped_with_the_reason_and_fails_strictly():
    ordinary = check_optimizer(torch.optim.Muon, only=["shapes.vector", "maximize"])
    assert [result.status for result in ordinary.results] == ["skip", "skip"]
    assert (
        "refused at construction: ValueError: Muon only supports 2D parameters" in ordinary.results[0].message
    )
    assert ordinary.results[1].message == "not claimed: the constructor has no argument 'maximize'"
    assert not ordinary.passed, "nothing was tested, so nothing passed"
    strict = check_optimizer(torch.optim.Muon, only=["shapes.vector", "maximize"], strict=True)
    assert [result.status for result in strict.results] == ["fail", "fail"]


def test_only_and_skip_take_names_and_groups():
    names = [
        result.name for result in check_optimizer(PlainMomentum, only="state", skip="state.pickle").results
    ]
    assert "state.deepcopy" in names
    assert "state.pickle" not in names
    assert all(name.startswith("state.") for name in names)
    with pytest.raises(ValueError, match=r"no check is named 'state.pickel'; did you mean 'state.pickle'\?"):
        check_optimizer(PlainMomentum, only="state.pickel")
    with pytest.raises(ValueError, match=r"no check is named 'shape'; did you mean 'shapes'\?"):
        check_optimizer(PlainMomentum, skip=["shape"])


def test_every_clause_has_checks_and_every_check_says_what_it_expects():
    checks = all_checks()
    assert {check.clause for check in checks} == set(CLAUSES) == set(range(1, 13))
    assert all(len(check.summary) > 20 for check in checks)
    assert [check.clause for check in checks] == sorted(check.clause for check in checks)


def test_reports_are_plain_data():
    report = check_optimizer(PlainMomentum, only=["repr", "zero_grad"], lr=0.1)
    data = json.loads(json.dumps(report.to_dict()))
    assert data["passed"] is True
    assert data["target"] == f"{PlainMomentum.__module__}.PlainMomentum(lr=0.1)"
    assert {result["name"] for result in data["results"]} == {"repr", "zero_grad"}
    assert all(result["status"] == "pass" and result["seconds"] > 0 for result in data["results"])


def test_an_empty_report_has_not_passed():
    assert not CheckReport("nothing", False, ()).passed
    assert CheckReport("one", False, (CheckResult("repr", 1, False, "pass"),)).passed


def test_what_is_not_an_optimizer_class_is_refused():
    for wrong in (torch.nn.Linear, torch.optim.SGD([torch.zeros(1)]), "SGD", torch.optim.Optimizer):
        with pytest.raises(TypeError, match=r"cls must be a subclass of torch\.optim\.Optimizer"):
            check_optimizer(wrong)  # type: ignore[arg-type]


class NeedsRho(PlainMomentum):
    def __init__(self, params, lr, rho, **kwargs):
        super().__init__(params, lr, **kwargs)
        self.rho = rho


def test_required_arguments_are_asked_for_and_a_required_lr_is_supplied():
    with pytest.raises(
        TypeError, match=r"NeedsRho needs the argument 'rho': check_optimizer\(..., rho=...\)"
    ):
        check_optimizer(NeedsRho)
    report = check_optimizer(NeedsRho, rho=1.0, only="step")
    assert report.passed
    assert report.target.endswith("NeedsRho(rho=1.0, lr=0.01)")


def test_the_suite_leaves_the_global_random_state_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check_optimizer(PlainMomentum, only=["step", "paths"])
    assert torch.equal(before, torch.get_rng_state())
