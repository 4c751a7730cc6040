"""From a name a person types to an optimizer class, with one-line errors."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import contextmanager
from typing import TypeGuard

import torch

from steepest.spelling import suggest

__all__ = ["TargetError", "load_target", "public_optimizers"]


class TargetError(ValueError):
    """The name given does not lead to a torch optimizer class; the message is one line."""


def public_optimizers() -> dict[str, type[torch.optim.Optimizer]]:
    """Optimizer classes reachable by a bare name: those of steepest, then those of ``torch.optim``."""
    import steepest

    found: dict[str, type[torch.optim.Optimizer]] = {}
    for module in (steepest, torch.optim):
        for name in getattr(module, "__all__", None) or dir(module):
            value = getattr(module, name, None)
            if _is_optimizer(value) and value is not torch.optim.Optimizer:
                found.setdefault(name, value)
    return found


def load_target(target: str) -> type[torch.optim.Optimizer]:
    """The optimizer class named by ``"module:Class"`` or by a bare name.

    ``"module:Class"`` imports ``module`` with the current folder importable. A bare name is looked up among
    the public optimizers of steepest, then among those of ``torch.optim``; capitals do not matter.

    Raises:
        TargetError: the module cannot be imported, the name does not exist or is not an optimizer class.

    Example:
        >>> from steepest._resolve import load_target
        >>> load_target("torch.optim:Adagrad").__name__
        'Adagrad'
    """
    if not isinstance(target, str) or not target.strip():
        raise TargetError(f"target must be 'module:Class' or an optimizer's name, got {target!r}")
    target = target.strip()
    if ":" in target:
        return _load_from_module(target)
    if target.endswith(".py") or "/" in target or "." in target:
        raise TargetError(
            f"{target!r} is not an optimizer's name; write 'module:Class', as in 'my_file:MyClass'"
        )
    return _load_by_name(target)


def _load_by_name(name: str) -> type[torch.optim.Optimizer]:
    known = public_optimizers()
    if name in known:
        return known[name]
    same = [candidate for candidate in known if candidate.casefold() == name.casefold()]
    if len(same) == 1:
        return known[same[0]]
    hint = suggest(name, list(known)) or "; write 'module:Class' for a class of your own"
    raise TargetError(f"no optimizer is named {name!r}{hint}")


def _load_from_module(target: str) -> type[torch.optim.Optimizer]:
    module_name, _, class_name = target.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")) or not class_name:
        raise TargetError(f"{target!r} is not of the form 'module:Class', as in 'my_package.optim:MyClass'")
    try:
        with _current_folder_importable():
            value: object = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise TargetError(
                f"no module named {error.name!r} in the current folder or among the installed packages"
            ) from error
        raise TargetError(f"importing {module_name!r} failed: {_one_line(error)}") from error
    except Exception as error:
        raise TargetError(f"importing {module_name!r} failed: {_one_line(error)}") from error
    for part in class_name.split("."):
        if not hasattr(value, part):
            raise TargetError(
                f"module {module_name!r} has no {class_name!r}{suggest(part, _optimizers_in(value))}"
            )
        value = getattr(value, part)
    if not _is_optimizer(value):
        what = f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
        raise TargetError(f"{target!r} is {what}, not a subclass of torch.optim.Optimizer")
    if value is torch.optim.Optimizer:
        raise TargetError("torch.optim.Optimizer is the base class; name one of its subclasses")
    return value


def _is_optimizer(value: object) -> TypeGuard[type[torch.optim.Optimizer]]:
    return isinstance(value, type) and issubclass(value, torch.optim.Optimizer)


def _optimizers_in(module: object) -> list[str]:
    return [name for name, value in vars(module).items() if _is_optimizer(value)]


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def _current_folder_importable():
    folder = os.getcwd()
    if folder in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
