"""Where a result comes from: versions, hardware, and the code of the classes that took part."""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
import sys
import sysconfig
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import torch

from steepest._version import __version__

_NOT_CORE = (["bench"], ["checks"], ["cli"], ["race"])
_OF_TASKS = ("steepest.race.tasks.", "steepest.race.data.")
_LOOP = (
    "contenders",
    "engine",
    "hopeless",
    "loop",
    "parallel",
    "schedules",
    "side",
    "task",
    "training",
    "twin",
)
_SOURCES = (".py", ".c", ".cpp", ".cu", ".h")


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Return the versions that a number in a record may depend on."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "steepest": __version__,
        "platform": f"{platform.system()} {platform.machine()}",
    }


@lru_cache(maxsize=1)
def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def hardware(device: str = "cpu") -> dict[str, str | int]:
    """Return the processor, its cores, the threads torch uses in this process, and the GPU of a device."""
    found: dict[str, str | int] = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
    }
    if torch.device(device).type == "cuda" and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name(torch.device(device))
    return found


@lru_cache(maxsize=256)
def code_fingerprint(target: str) -> str:
    """Return a hash of the code that decides what ``module:object`` does; "" if only torch's version does.

    A module outside the library counts with its own source and that of the modules it names, on and on
    (what a function imports only when it runs is not seen); installed packages count by their
    ``__version__``, this library by all of its optimizers' source. So an edit anywhere behind a class makes
    the race run it again, and an edit elsewhere does not.
    """
    counted: dict[str, str] = {}
    waiting = [target.partition(":")[0]]
    while waiting:
        name = waiting.pop()
        if name in counted:
            continue
        counted[name] = ""
        package = name.partition(".")[0]
        if package == "steepest" and name.split(".")[1:2] not in _NOT_CORE:
            counted["steepest"] = core_fingerprint()
        elif package not in ("torch", "steepest") or name.startswith(_OF_TASKS):
            module = importlib.import_module(name)
            source = _source(module)
            if source is None or is_installed(source):
                counted[package] = str(getattr(sys.modules.get(package), "__version__", ""))
            else:
                counted[name] = _hash([source])
                waiting += _named_by(module)
    known = sorted((name, what) for name, what in counted.items() if what)
    return hashlib.sha256(repr(known).encode()).hexdigest()[:12] if known else ""


@lru_cache(maxsize=1)
def core_fingerprint() -> str:
    """Return a hash of the source of everything in the library that takes part in an optimizer's step."""
    root = Path(__file__).parents[1]
    apart = [root.joinpath(*part) for part in _NOT_CORE]
    return _hash(
        p
        for p in sorted(root.rglob("*"))
        if p.suffix in _SOURCES and not any(folder in p.parents for folder in apart)
    )


@lru_cache(maxsize=1)
def loop_fingerprint() -> str:
    """Return a hash of the source that builds optimizers for a task and trains with them."""
    folder = Path(__file__).parent
    return _hash(folder / f"{name}.py" for name in _LOOP)


def _hash(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:12]


def _source(module: ModuleType) -> Path | None:
    """The module's source file; None for what is compiled or built in."""
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file and file.endswith(".py") else None


def is_installed(source: Path) -> bool:
    """Say whether a file is Python's own or an installed package's."""
    return any(folder in source.parents for folder in _installed_folders())


@lru_cache(maxsize=1)
def _installed_folders() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({Path(sysconfig.get_paths()[name]).resolve() for name in names})


def _named_by(module: ModuleType) -> list[str]:
    """The modules that a module's global names come from."""
    values = list(vars(module).values())
    found = [v.__name__ if isinstance(v, ModuleType) else getattr(v, "__module__", None) for v in values]
    return [name for name in found if isinstance(name, str) and name in sys.modules]
