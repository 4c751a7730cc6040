"""The build fails when a public name stands in no page of the reference, or has no docstring.

Public is what a module below lists in ``__all__``. Optimizers stand on the pages of methods.
"""

import importlib
import inspect
import re

from mkdocs.exceptions import PluginError

MODULES = (
    "steepest",
    "steepest.checks",
    "steepest.distributed",
    "steepest.gallery",
    "steepest.linalg",
    "steepest.preconditioners",
    "steepest.race",
    "steepest.rates",
    "steepest.routing",
)
DIRECTIVE = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)
HEADING = re.compile(r"\A# (\w+)$", re.MULTILINE)


def _told(name: str) -> object:
    """Return the object of a dotted name."""
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def _shown(files) -> list[object]:
    shown = []
    for file in files.documentation_pages():
        if file.src_uri.startswith("reference/"):
            shown += [_told(name) for name in DIRECTIVE.findall(file.content_string)]
        elif file.src_uri.startswith("methods/") and file.name != "index":
            shown += [_told(f"steepest.{name}") for name in HEADING.findall(file.content_string)]
    return shown


def on_files(files, **_):
    shown = {id(thing) for thing in _shown(files)}
    wrong = []
    for module in MODULES:
        for name in importlib.import_module(module).__all__:
            thing = _told(f"{module}.{name}")
            if inspect.ismodule(thing) or name.startswith("_"):
                continue
            if callable(thing) and not (thing.__doc__ or "").strip():
                wrong.append(f"{module}.{name} has no docstring")
            if id(thing) not in shown:
                wrong.append(f"{module}.{name} stands in no page of docs/reference")
    if wrong:
        raise PluginError("; ".join(wrong))
    return files
