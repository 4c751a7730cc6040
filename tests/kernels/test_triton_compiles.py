"""Every kernel compiles to machine code for the GPUs it is meant for; no GPU is needed for that."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed, which the package can do without")


def test_every_kernel_compiles_and_reads_wide(tmp_path):
    """16 bytes at a time where addresses and rows allow it."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    script = Path(__file__).with_name("compile_kernels.py")
    done = subprocess.run([sys.executable, script, "90"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    widest = json.loads(done.stdout)
    assert {name: list(kernels) for name, kernels in widest.items()} == {
        "andi": ["sums", "norms", "equilibrate", "finish", "descend"],
        "odd": ["sums", "norms", "equilibrate", "finish", "descend"],
        "normalized": ["measure", "finish", "move"],
        "sign": ["correct", "elementwise"],
    }
    for step in ("andi", "normalized", "sign"):
        streaming = {"sums", "equilibrate", "descend", "measure", "move", "elementwise"} & set(widest[step])
        assert all(widest[step][kernel] == 16 for kernel in streaming)
    assert widest["odd"]["descend"] <= 8
