"""``parametrize_checks``: what a third party's three-line test file does under pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from steepest.checks import all_checks, parametrize_checks

from .broken import DecaysIntoGradient
from .plain import PlainMomentum


@parametrize_checks(PlainMomentum, lr=0.1, strict=True, only=["closure", "precision"])
def test_contract(check):
    check()


FILE = f"""
from steepest.checks import parametrize_checks
from {DecaysIntoGradient.__module__} import DecaysIntoGradient

@parametrize_checks(DecaysIntoGradient, only=["step", "paths.foreach_agrees"])
def test_contract(check):
    check()
"""


def test_each_check_is_one_named_test(tmp_path):
    (tmp_path / "test_theirs.py").write_text(FILE)
    root = Path(__file__).resolve().parents[__name__.count(".")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rsf", "-p", "no:cacheprovider", "test_theirs.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED test_theirs.py::test_contract[step.grad_unchanged]" in done.stdout
    assert "DecaysIntoGradient: step.grad_unchanged (clause 7)" in done.stdout
    assert "the fast path is chosen by 'fused'" in done.stdout
    assert "1 failed, 6 passed, 1 skipped" in done.stdout
    assert "registry.py" not in done.stdout, "a failure shows the message, not the inside of the suite"


def test_the_decorator_covers_every_check():
    mark: pytest.Mark = parametrize_checks(torch.optim.SGD).mark
    assert [repr(case) for case in mark.args[1]] == [f"<check {check.name}>" for check in all_checks()]
