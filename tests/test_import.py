"""What `import steepest` brings in: a training job pays for it in every process."""

from __future__ import annotations

import json
import subprocess
import sys

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
    heavy = [m for m in added if any(m == name or m.startswith(f"{name}.") for name in HEAVY)]
    assert heavy == []
    others = [m for m in added if m.partition(".")[0] != "steepest"]
    assert len(others) <= 10, others  # of torch and the standard library
    assert len(added) <= 130, added
