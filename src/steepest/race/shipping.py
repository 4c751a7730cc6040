"""Modules of the user's own, sent to machines that do not have them.

Whatever has been imported from outside the Python installation when tasks and optimizers are loaded is
taken: single files, and packages whole. Installed packages must be there; the keys of runs tell where they
differ.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from steepest.race.provenance import is_installed
from steepest.race.records import RaceError

LIMIT = 100 * 2**20
_NOT_SENT = ("__main__", "__mp_main__", "steepest")


def own_modules() -> dict[str, bytes]:
    """Return the files of imported modules that are neither installed nor this library, by relative path.

    Raises:
        RaceError: they hold more than 100 MiB; data in a package's folder is the usual reason.
    """
    sources: dict[str, Path] = {}
    for name, module in sorted(sys.modules.items()):
        top = name.partition(".")[0]
        if top not in _NOT_SENT and top not in sources and (source := _own_source(module, name)):
            sources[top] = source
    files: dict[str, bytes] = {}
    size = 0
    for source in sources.values():
        for file in _files(source):
            size += file.stat().st_size
            if size > LIMIT:
                raise RaceError(f"your modules hold more than {LIMIT >> 20} MiB; keep data out of {source}")
            files[file.relative_to(source.parent).as_posix()] = file.read_bytes()
    return files


def install_modules(files: Mapping[str, bytes]) -> None:
    """Make the files importable in this process, before anything else of their names."""
    folder = tempfile.mkdtemp(prefix="steepest-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, content in files.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    sys.path.insert(0, folder)


def _own_source(module: ModuleType, name: str) -> Path | None:
    """Return the file, or the top package's folder, that a module which is not installed comes from."""
    file = getattr(module, "__file__", None)
    path = Path(file).resolve() if file and file.endswith(".py") else None
    if path is None or is_installed(path):
        return None
    depth = name.count(".") + (path.name == "__init__.py")
    source = path.parents[depth - 1] if depth else path
    return source if source.stem == name.partition(".")[0] else None  # else it is not where its name says


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    return [f for f in sorted(source.rglob("*")) if f.is_file() and "__pycache__" not in f.parts]
