"""What `import steepest` brings in: a training job pays for it in every process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import steepest

CODE = """
import json, sys, torch
before = set(sys.modules)
import steepest
print(json.dumps(sorted(set(sys.modules) - before)))
"""
HEAVY = (
    "matplotlib",
    "rich",
    "scipy",
    "sklearn",
    "steepest.bench",
    "steepest.catalogue",
    "steepest.checks",
    "steepest.cli",
    "steepest.race",
    "torch._dynamo",
    "torch._inductor",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "triton",
    "typer",
)


def test_importing_the_library_imports_little_else() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    added = json.loads(done.stdout)
    assert done.stderr == ""
    heavy = [m for m in added if any(m == name or m.startswith(f"{name}.") for name in HEAVY)]
    assert heavy == []
    others = [m for m in added if m.partition(".")[0] != "steepest"]
    foreign = [m for m in others if m.partition(".")[0] not in {"torch", *sys.stdlib_module_names}]
    assert foreign == []
    assert len(others) <= 10, others
    assert len(added) <= 100, added


def test_names_that_come_later_are_there_when_asked_for() -> None:
    assert "KFAC" in dir(steepest)
    assert steepest.KFAC.__module__ == "steepest.optimizers.kfac"
    assert vars(steepest)["KFAC"] is steepest.KFAC
    with pytest.raises(AttributeError, match="module 'steepest' has no attribute 'KFCA'"):
        _ = steepest.KFCA  # pyright: ignore
