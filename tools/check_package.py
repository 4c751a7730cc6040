"""Build the source archive and two wheels, look into them, and run each in a clean environment.

One wheel is built from the source archive with the compiler there is, one with none. An environment is
clean but for torch and what torch needs, which it borrows from the interpreter that runs this script.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = ("steepest/", "steepest-")
NEEDED = ("steepest/py.typed", "licenses/LICENSE", "licenses/CITATION.cff", "entry_points.txt")
IN_SOURCE = ("setup.py", "pyproject.toml", "LICENSE", "CITATION.cff", "kernels.c", "_version.py", "README.md")
MISSING = "RuntimeWarning: steepest's native CPU kernels are not built"
USE = """
import importlib.metadata, sys, torch, steepest
from steepest.kernels import native
where = steepest.__file__
assert where.startswith(sys.prefix), where
assert importlib.metadata.version("steepest") == steepest.__version__
model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 32))
for make in (steepest.ANDI, steepest.AdamW, steepest.SignSGD, steepest.Muon):
    optimizer = make(model.parameters(), lr=1e-3)
    before = None
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(torch.eye(32)) - torch.eye(32)).square().mean()
        loss.backward()
        optimizer.step()
        before = before or loss.item()
    assert loss.item() < before, make
steepest.show_config()
"""


def build(source: Path, out: Path, kind: str, environment: dict[str, str] | None = None) -> Path:
    """Return the archive that ``python -m build`` makes of a source."""
    call = [sys.executable, "-m", "build", f"--{kind}", "--outdir", str(out), str(source)]
    done = subprocess.run(call, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    if done.returncode:
        raise SystemExit(f"{' '.join(call)} failed:\n{done.stdout}\n{done.stderr}")
    (made,) = out.iterdir()
    return made


def unpacked(archive: Path, where: Path) -> Path:
    """Return the folder of an unpacked source archive, after looking at what it holds."""
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        tar.extractall(where, filter="data")
    missing = [name for name in IN_SOURCE if not any(n.endswith(f"/{name}") for n in names)]
    if missing:
        raise SystemExit(f"{archive.name} lacks {', '.join(missing)}")
    return where / archive.name.removesuffix(".tar.gz")


def look_into(wheel: Path, compiled: bool) -> None:
    """Raise unless a wheel holds the package, its licence and types, and nothing else."""
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    foreign = [n for n in names if not n.startswith(ALLOWED) or n.endswith((".c", ".h", ".o", ".pyc"))]
    missing = [need for need in NEEDED if not any(name.endswith(need) for name in names)]
    libraries = [name for name in names if name.endswith(".so")]
    if foreign or missing or len(libraries) != compiled:
        raise SystemExit(f"{wheel.name}: foreign {foreign}, missing {missing}, libraries {libraries}")


def run(wheel: Path, where: Path, compiled: bool) -> str:
    """Return what an environment with nothing but a wheel and torch says of its configuration.

    It must warn once that it was built without a compiler, and of nothing else.
    """
    venv.create(where, with_pip=False)
    python = where / "bin" / "python"
    site = next((where / "lib").iterdir()) / "site-packages"
    # A path in a .pth file lends packages, but not the .pth files beside them: no editable installation.
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, "--disable-pip-version-check", str(wheel)], check=True)
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([str(python), "-c", USE], capture_output=True, text=True, cwd=where, env=clean)
    warned = done.stderr.count("Warning")
    if done.returncode or warned != done.stderr.count(MISSING) or warned != (not compiled):
        raise SystemExit(
            f"{wheel.name} in a clean environment: code {done.returncode}\n{done.stdout}{done.stderr}"
        )
    listed = [str(where / "bin" / "steepest"), "list"]
    subprocess.run(listed, check=True, stdout=subprocess.DEVNULL, cwd=where, env=clean)
    return done.stdout


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        source = unpacked(build(ROOT, scratch / "sdist", "sdist"), scratch)
        for name, environment in (("none", {"CC": "false", "CXX": "false"}), ("compiler", {})):
            compiled = name == "compiler"
            shutil.rmtree(source / "build", ignore_errors=True)  # or the second finds what the first compiled
            wheel = build(source, scratch / name, "wheel", environment)
            look_into(wheel, compiled)
            told = run(wheel, scratch / f"environment-{name}", compiled)
            print(f"{wheel.name}, built with {name}:\n{told}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
