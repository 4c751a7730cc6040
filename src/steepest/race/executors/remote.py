"""What a process of another machine does with a run; the caller's modules and settings come with it."""

from __future__ import annotations

import inspect
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from steepest.race.shipping import install_modules

if TYPE_CHECKING:
    from steepest.race.spec import RunSpec

PRINTED = 2**16
"""Bytes of a run's output that come back, its last ones."""

_installed = False


@dataclass(frozen=True)
class Outcome:
    """A record as JSON, or why this machine must not do the run; and what was printed."""

    record: str = ""
    refused: str = ""
    printed: str = ""


def do(
    spec: dict[str, Any],
    versions: Mapping[str, str],
    modules: Mapping[str, bytes],
    variables: Mapping[str, str],
) -> Outcome:
    """Do a run in this process.

    Args:
        spec: of the run, as plain data.
        versions: of the caller's software, to tell how this machine differs.
        modules: the caller's own, see `own_modules`.
        variables: of the environment. ``STEEPEST_DATA`` is taken if its folder exists here, else this
            machine's own stands.
    """
    global _installed
    if not _installed:
        install_modules(modules)
        _installed = True
    os.environ.update({k: v for k, v in variables.items() if k != "STEEPEST_DATA" or os.path.isdir(v)})
    with tempfile.TemporaryFile() as output:
        with _printing_to(output):
            record, refused = _result(spec, versions)
        output.seek(max(0, output.seek(0, os.SEEK_END) - PRINTED))
        return Outcome(record, refused, output.read().decode(errors="replace"))


def _result(raw: dict[str, Any], caller: Mapping[str, str]) -> tuple[str, str]:
    import torch

    from steepest.race.records import RaceError
    from steepest.race.spec import RunSpec
    from steepest.race.torchrun import perform

    spec = RunSpec.from_dict(raw)
    try:
        difference = _difference(spec, caller)
    except RaceError as error:
        difference = str(error)
    if difference:
        return "", f"node {platform.node()} would not do the same run: {difference}"
    torch.set_num_threads(spec.engine.threads)
    return perform(spec).to_json(), ""


def _difference(spec: RunSpec, caller: Mapping[str, str]) -> str:
    """Say in which way this machine's run would not be the caller's, by its key; "" if it is the same."""
    from steepest.race.contenders import parse_contender
    from steepest.race.provenance import versions
    from steepest.race.spec import make_spec
    from steepest.race.task_text import load_task

    parameters = inspect.signature(make_spec).parameters.values()
    options = {p.name: getattr(spec, p.name) for p in parameters if p.kind is p.KEYWORD_ONLY}
    task, contender = load_task(spec.task), parse_contender(spec.contender)
    if make_spec(spec.task, task, contender, **options).key == spec.key:
        return ""
    here = versions()
    differ = [f"{n} {here.get(n)} instead of {of}" for n, of in caller.items() if here.get(n) != of]
    return (
        ", ".join(differ) or "its code of steepest, of the task or of the optimizer, or its data, is another"
    )


@contextmanager
def _printing_to(file: IO[bytes]) -> Iterator[None]:
    """Send what this process and its children print to a file."""
    _flush()
    kept = os.dup(1), os.dup(2)
    for descriptor in (1, 2):
        os.dup2(file.fileno(), descriptor)
    try:
        yield
    finally:
        _flush()
        for descriptor, old in enumerate(kept, start=1):
            os.dup2(old, descriptor)
            os.close(old)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
