"""When there are no native kernels: why, what is said, and that everything works without."""

import ctypes
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from torch.nn import Parameter

import steepest
from steepest import kinds
from steepest.kernels import native
from steepest.kernels.native import library as module
from steepest.kernels.native.kernel import CHOICES, NUMBERS, Recipe
from steepest.kernels.native.library import ABI, ENTRY_POINTS, FILE, Library, Unavailable, load

ROOT = Path(__file__).parents[2]
built = pytest.mark.skipif(isinstance(load(), Unavailable), reason="no native kernels here")


def reason(path: Path = FILE) -> str:
    with pytest.raises(Unavailable) as caught:
        module._load(path)
    return str(caught.value)


def step_once(**settings) -> torch.Tensor:
    torch.manual_seed(0)
    param = Parameter(torch.randn(20, 30))
    param.grad = torch.randn(20, 30)
    steepest.ANDI([param], **settings).step()
    return param.detach()


def test_switched_off(monkeypatch):
    monkeypatch.setenv("STEEPEST_NATIVE", "0")
    assert reason() == "switched off by STEEPEST_NATIVE=0"


def test_not_built(tmp_path):
    assert "there was no C compiler" in reason(tmp_path / "_kernels.so")


def test_a_file_that_is_no_library(tmp_path):
    path = tmp_path / "_kernels.so"
    path.write_bytes(b"not a library")
    assert "cannot be loaded" in reason(path)


@built
def test_a_library_of_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(module, "ABI", ABI + 1)
    assert f"(interface {ABI}, needed {ABI + 1}): install steepest again" in reason()


@built
def test_another_library_is_refused():
    other = Path(torch.__file__).parent / "lib" / "libtorch_global_deps.so"
    if not other.exists():
        pytest.skip("no such library")
    assert "steepest_abi" in reason(other)


@built
def test_threads_without_the_interface(monkeypatch):
    monkeypatch.setattr(module, "ENTRY_POINTS", (*ENTRY_POINTS[:3], "omp_no_such_function"))
    assert reason() == "torch's threads have no GNU OpenMP interface here"


@built
def test_the_runtime_is_the_one_torch_has_loaded():
    """No second pool of threads."""
    before = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "omp" in line}
    module._runtime()
    step_once()
    after = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "omp" in line}
    assert before == after


@built
@pytest.mark.parametrize("level", module.LEVELS)
def test_every_level_of_instructions_agrees(monkeypatch, level):
    monkeypatch.setenv("STEEPEST_SIMD", level)
    try:
        chosen = module._load(FILE)
        assert chosen.simd in module.LEVELS[: module.LEVELS.index(level) + 1]
        assert torch.allclose(step_once(), step_once(fused=False), rtol=1e-6, atol=1e-7)
    finally:
        monkeypatch.undo()
        module._load(FILE)  # the best level again


def test_an_unknown_level_is_an_error(monkeypatch):
    monkeypatch.setenv("STEEPEST_SIMD", "sse9")
    with pytest.raises(ValueError, match="STEEPEST_SIMD must be one of baseline, avx2, avx512, got 'sse9'"):
        module._load(FILE)


def test_the_recipe_is_laid_out_as_in_c():
    """Fourteen 32-bit numbers, then six doubles."""
    assert len(CHOICES) == 14
    assert ctypes.sizeof(Recipe) == 4 * len(CHOICES) + 8 * len(NUMBERS)
    header = (Path(module.__file__).parent / "csrc" / "abi.h").read_text()
    declared = header[header.index("typedef struct") : header.index("} Recipe")]
    names = declared.replace(",", " ").replace(";", " ").split()
    assert [name for name in names if name in (*CHOICES, *NUMBERS)] == [*CHOICES, *NUMBERS]
    assert f"#define STEEPEST_ABI {ABI}" in header


class TestWithout:
    """The same steps on the reference path, and one warning."""

    @pytest.fixture(autouse=True)
    def _missing(self, monkeypatch):
        monkeypatch.setattr(native, "load", lambda: Unavailable("not built: no compiler"))
        monkeypatch.setattr("steepest.kernels.native.finite.load", lambda: Unavailable("not built"))
        monkeypatch.setattr(kinds, "_kinds", {})
        native._say.cache_clear()
        yield
        native._say.cache_clear()

    def test_one_warning(self, recwarn):
        found = [step_once() for _ in range(3)]
        assert len(recwarn) == 1
        said = recwarn.pop(RuntimeWarning)
        assert "native CPU kernels are not built: no compiler" in str(said.message)
        assert torch.equal(found[0], step_once(fused=False))

    def test_no_warning_where_no_kernel_would_be(self, recwarn):
        step_once(fused=False)
        param = Parameter(torch.randn(20, 30))
        param.grad = torch.randn(20, 30)
        steepest.AdamW([param]).step()  # torch has its own
        assert not recwarn.list

    def test_no_warning_for_those_who_chose(self, recwarn, monkeypatch):
        monkeypatch.setattr(native, "load", lambda: Unavailable("switched off", wanted=False))
        step_once()
        assert not recwarn.list

    def test_asking_for_it_is_an_error(self, recwarn):
        with pytest.raises(ValueError, match="no fused path in ANDI"):
            step_once(fused=True)

    def test_gradients_are_still_screened(self):
        assert native.all_finite([torch.tensor([1.0])])[:2] == (True, [torch.tensor([1.0])])
        param = Parameter(torch.zeros(3))
        param.grad = torch.tensor([1.0, float("nan"), 0.0])
        with pytest.raises(FloatingPointError):
            steepest.AdamW([param]).step()


def build(tmp_path: Path, compiler: str) -> tuple[subprocess.CompletedProcess, Path]:
    """Build the extension alone in a copy of what it needs."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(FILE.parent / "csrc", tmp_path / FILE.parent.relative_to(ROOT) / "csrc")
    (tmp_path / "src/steepest/_version.py").write_text('__version__ = "0"\n')
    (tmp_path / "src/steepest/__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", "--inplace"],
        cwd=tmp_path,
        env={**os.environ, "CC": compiler},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, tmp_path / FILE.relative_to(ROOT)


def test_installing_without_a_compiler_succeeds(tmp_path):
    pytest.importorskip("setuptools", minversion="77")
    done, made = build(tmp_path, str(tmp_path / "no-compiler"))
    assert done.returncode == 0, done.stderr
    assert not made.exists()


def test_the_library_is_built_by_what_installs_it(tmp_path):
    """At -O0, which takes a moment: the commands matter here, not the code."""
    pytest.importorskip("setuptools", minversion="77")
    if not shutil.which("cc"):
        pytest.skip("no compiler")
    quick = tmp_path / "quick-cc"
    quick.write_text('#!/bin/sh\nexec cc "$@" -O0\n')
    quick.chmod(0o755)
    done, made = build(tmp_path, str(quick))
    assert done.returncode == 0, done.stderr
    assert made.exists()
    assert sysconfig.get_config_var("EXT_SUFFIX") not in {p.name for p in made.parent.iterdir()}
    loaded = module._load(made)
    assert isinstance(loaded, Library)
    assert loaded.compiler != "unknown"
