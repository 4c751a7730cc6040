"""Kill distributed training in the middle and resume it on another number of processes; nothing is lost.

Runs examples/distributed/fsdp2.py and ddp.py under torchrun: once undisturbed, once with a process killed
between two checkpoints, then resumed. The losses of the last step agree.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent / "distributed"
STEPS, DIES_AT = 30, 25


def launch(script: str, processes: int, folder: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += [str(SCRIPTS / script), "--folder", str(folder), f"--steps={STEPS}", *extra]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


def loss_in(done: subprocess.CompletedProcess[str]) -> float:
    found = re.search(r"loss ([\d.]+)", done.stdout)
    if done.returncode or not found:
        sys.exit(f"{done.stdout}\n{done.stderr}")
    return float(found[1])


for script, processes in (("fsdp2.py", 4), ("ddp.py", 2)):
    with tempfile.TemporaryDirectory() as scratch:
        undisturbed = loss_in(launch(script, 2, Path(scratch) / "undisturbed"))
        folder = Path(scratch) / "killed"
        killed = launch(script, processes, folder, f"--die-at={DIES_AT}")
        assert killed.returncode != 0
        resumed = launch(script, 2, folder)
        assert "resumed from step000020" in resumed.stdout, resumed.stdout + resumed.stderr
        print(f"{script}: loss {undisturbed:.6f} undisturbed, {loss_in(resumed):.6f} killed and resumed")
        assert abs(undisturbed - loss_in(resumed)) < 1e-3
