"""``main_check`` and ``load_target``: every wrong request is one line and exit code 2."""

from __future__ import annotations

import json
import sys

import pytest
import torch

import steepest
from steepest._resolve import TargetError, load_target, public_optimizers
from steepest.checks import main_check
from steepest.spelling import suggest

from . import broken, test_report


def run(target: str, **options) -> tuple[int, str]:
    lines: list[str] = []
    code = main_check(target, out=lines.append, **options)
    return code, "\n".join(lines)


def test_a_pass_a_failure_and_json():
    code, text = run("torch.optim:SGD", kwargs='{"lr": 0.1}', only=["repr"])
    assert code == 0
    assert text.startswith("torch.optim.sgd.SGD(lr=0.1): PASSED")
    code, text = run(f"{broken.__name__}:DecaysIntoGradient", only="step")
    assert code == 1
    assert "Failures (1)" in text
    code, text = run(f"{broken.__name__}:DecaysIntoGradient", only="step", json=True)
    assert code == 1
    assert json.loads(text)["counts"]["fail"] == 1


def test_strict_skip_and_tuples_from_json():
    code, text = run("torch.optim:AdamW", kwargs='{"betas": [0.5, 0.9]}', only="state", skip="state.plain")
    assert code == 0
    assert "betas=(0.5, 0.9)" in text
    assert "state.plain" not in text
    assert run("torch.optim:Muon", only="precision", strict=True)[0] == 1


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("no_such_module_x:Thing", {}, "no module named 'no_such_module_x'"),
        ("torch.optim:AdamX", {}, "module 'torch.optim' has no 'AdamX'; did you mean 'Adam"),
        ("torch.nn:Linear", {}, "is the class Linear, not a subclass of torch.optim.Optimizer"),
        ("math:pi", {}, "is a float, not a subclass"),
        ("torch.optim:Optimizer", {}, "is the base class"),
        ("torch.optim:", {}, "is not of the form 'module:Class'"),
        ("Adadleta", {}, "no optimizer is named 'Adadleta'; did you mean 'Adadelta'?"),
        ("zzzzqqqq", {}, "write 'module:Class' for a class of your own"),
        ("optim.py", {}, "write 'module:Class'"),
        ("", {}, "target must be 'module:Class'"),
        ("torch.optim:SGD", {"only": ["stat"]}, "no check is named 'stat'; did you mean 'state'?"),
        ("torch.optim:SGD", {"skip": "nothing.here"}, "no check is named 'nothing.here'"),
        ("torch.optim:SGD", {"kwargs": "{lr: 1}"}, "kwargs must be a JSON object"),
        ("torch.optim:SGD", {"kwargs": "[1]"}, "kwargs must be a JSON object"),
        ("torch.optim:SGD", {"kwargs": '{"only": 1}'}, "kwargs may not contain 'only'"),
        ("torch.optim:SGD", {"device": "cpux"}, "device 'cpux' cannot be used here; did you mean 'cpu'?"),
        (f"{test_report.__name__}:NeedsRho", {}, "NeedsRho needs the argument 'rho'"),
    ],
)
def test_a_wrong_request_is_one_line(target, options, message):
    code, text = run(target, **options)
    assert code == 2
    assert message in text
    assert text.startswith("error: ")
    assert "\n" not in text


def test_errors_go_to_err_when_given():
    out: list[str] = []
    err: list[str] = []
    assert main_check("zzzz", out=out.append, err=err.append) == 2
    assert not out
    assert len(err) == 1


def test_a_wrong_constructor_argument_is_a_readable_failure():
    code, text = run("torch.optim:SGD", kwargs='{"lrx": 1}')
    assert code == 1
    assert "it raised TypeError: SGD.__init__() got an unexpected keyword argument 'lrx'" in text
    assert "Traceback" not in text


def test_the_current_folder_is_importable_and_broken_files_are_one_line(tmp_path, monkeypatch):
    (tmp_path / "mine_for_test.py").write_text("import torch\n\nclass Mine(torch.optim.SGD):\n    pass\n")
    (tmp_path / "syntax_for_test.py").write_text("class Mine(:\n")
    (tmp_path / "needs_for_test.py").write_text("import not_installed_anywhere\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = list(sys.path)
    assert load_target("mine_for_test:Mine").__name__ == "Mine"
    assert sys.path == before
    with pytest.raises(TargetError, match=r"has no 'Mien'; did you mean 'Mine'\?"):
        load_target("mine_for_test:Mien")
    with pytest.raises(TargetError, match=r"importing 'syntax_for_test' failed: SyntaxError: [^\n]*$"):
        load_target("syntax_for_test:Mine")
    with pytest.raises(TargetError, match="importing 'needs_for_test' failed: ModuleNotFoundError"):
        load_target("needs_for_test:Mine")


def test_bare_names_prefer_steepest_then_torch_and_ignore_capitals():
    assert load_target("Muon") is steepest.Muon
    assert load_target("andi") is steepest.ANDI
    assert load_target("Adadelta") is torch.optim.Adadelta
    assert load_target("rmsprop") is torch.optim.RMSprop
    assert torch.optim.Optimizer not in public_optimizers().values()


def test_suggestions_name_the_closest():
    assert suggest("adamv", ["SGD", "AdamW"]) == "; did you mean 'AdamW'?"
    assert suggest("qqqq", ["SGD"]) == ""
