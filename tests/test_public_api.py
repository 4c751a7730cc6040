"""The public surface: names, documentation, examples."""

import doctest
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
import torch

import steepest
from steepest.optimizer import RuleOptimizer
from toys import MAKERS

ROOT = Path(steepest.__file__).parent
CLASSES = {name: value for name in steepest.__all__ if inspect.isclass(value := getattr(steepest, name))}
OPTIMIZERS = {name: value for name, value in CLASSES.items() if issubclass(value, torch.optim.Optimizer)}


def test_names_are_there():
    assert len(set(steepest.__all__)) == len(steepest.__all__)
    assert all(hasattr(steepest, name) for name in steepest.__all__)
    visible = {
        name
        for name, value in vars(steepest).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    public = {name for name in steepest.__all__ if not inspect.ismodule(getattr(steepest, name))}
    assert visible == public - {"__version__"}


def test_every_optimizer_is_under_test():
    """KFAC takes a model instead of parameters and has tests of its own."""
    covered = {make.func.__name__ for make in MAKERS.values()}
    assert {name for name, cls in OPTIMIZERS.items() if issubclass(cls, RuleOptimizer)} - {"KFAC"} <= covered


@pytest.mark.parametrize("name", CLASSES)
def test_classes_and_methods_are_documented(name):
    cls = CLASSES[name]
    assert cls.__doc__
    assert cls.__doc__.strip().endswith((".", "]", ")")) or ">>>" in cls.__doc__
    for key, member in vars(cls).items():
        if not key.startswith("_") and callable(getattr(cls, key)):
            assert inspect.getdoc(member), f"{name}.{key}"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_document_what_people_ask(name):
    doc = inspect.getdoc(OPTIMIZERS[name]) or ""
    sections = [
        "Formula:",
        "From AdamW:",
        "State:",
        "When not to use:",
        "Args:",
        "Raises:",
        "Source:",
        "Example:",
    ]
    places = [doc.find(section) for section in sections]
    assert -1 not in places, f"missing {[s for s, at in zip(sections, places, strict=True) if at < 0]}"
    assert places == sorted(places)
    assert ">>>" in doc
    parameters = list(inspect.signature(OPTIMIZERS[name]).parameters)
    assert parameters[0] in ("params", "model")
    arguments = doc[doc.find("Args:") : doc.find("Raises:")]
    undocumented = [p for p in parameters if p not in arguments]
    assert not undocumented


def modules_with_examples() -> list[str]:
    found = []
    for info in pkgutil.walk_packages([str(ROOT)], "steepest."):
        path = ROOT.joinpath(*info.name.split(".")[1:])
        source = path / "__init__.py" if info.ispkg else path.with_suffix(".py")
        if source.exists() and ">>>" in source.read_text(encoding="utf-8"):
            found.append(info.name)
    return found


@pytest.mark.parametrize("module", modules_with_examples())
def test_examples_run(module, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0
