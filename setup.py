"""Builds the native CPU kernels where there is a C compiler; without one, everything else installs alike.

The library is plain C with no Python in it, so that one build serves every Python version. Its loops are
compiled once for each level of instructions and chosen from when it is loaded.
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

NATIVE = "src/steepest/kernels/native"
SOURCES = [f"{NATIVE}/csrc/kernels.c", f"{NATIVE}/csrc/library.c"]
HEADERS = sorted(str(path) for path in Path(NATIVE, "csrc").glob("*.h"))
# NaN and infinities mean what they say; given up are the order of sums, the sign of zero, flags and traps.
FLAGS = (
    "-std=c11 -O3 -g0 -ffp-contract=fast -fno-math-errno -fno-trapping-math -fno-signed-zeros "
    "-fassociative-math -fvisibility=hidden"
)
AVX2 = "-mavx2 -mfma"
LEVELS = {
    "baseline": "",
    "avx2": AVX2,
    "avx512": f"{AVX2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512",
}


class BuildKernels(build_ext):
    """Compiles the loops for every level and links one library."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return a name without the Python version, which the library does not depend on."""
        return os.path.join(*fullname.split(".")) + ".so"

    def build_extension(self, ext: Extension) -> None:
        """Build, or raise what makes setuptools go on without: the extension is optional."""
        if self.compiler.compiler_type != "unix":
            raise CompileError(f"native kernels need GCC or Clang, not {self.compiler.compiler_type}")
        kernels, library = ext.sources
        levels = LEVELS if platform.machine() in ("x86_64", "AMD64") else {"baseline": ""}
        objects = []
        for level, flags in levels.items():
            where = os.path.join(self.build_temp, level)
            defined = [("LEVEL", level)]
            flags = [*FLAGS.split(), *flags.split()]
            objects += self.compiler.compile(
                [kernels], where, macros=defined, extra_postargs=flags, depends=ext.depends
            )
        defined = [("STEEPEST_COMPILER", f'"{self._version()}"')]
        if len(levels) == 1:
            defined.append(("STEEPEST_ONE_LEVEL", "1"))
        objects += self.compiler.compile(
            [library], self.build_temp, macros=defined, extra_postargs=FLAGS.split(), depends=ext.depends
        )
        self.compiler.link_shared_object(objects, self.get_ext_fullpath(ext.name), libraries=["m"])

    def _version(self) -> str:
        """Return the compiler's first line about itself."""
        asked = [*self.compiler.compiler_so[:1], "--version"]
        try:
            answer = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return "unknown"
        return answer.partition("\n")[0].strip().replace('"', "").replace("\\", "") or "unknown"


class PlatformWheel(bdist_wheel):
    """A wheel for one platform and every Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return (python, abi, platform)."""
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[
        Extension("steepest.kernels.native._kernels", SOURCES, depends=HEADERS, optional=True),
    ],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel},
)
