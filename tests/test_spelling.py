"""A misspelt argument is told with what was meant, where Python alone would only refuse it."""

import copy
import inspect
import operator
import pickle
import re
from typing import Any

import pytest
from torch import nn

import steepest
from steepest.race import Claim, Paper, Task


@pytest.mark.parametrize(
    ("call", "misspelt", "meant"),
    [
        (
            steepest.EMA,
            {"nesterof": True},
            "EMA got an unknown argument 'nesterof'; did you mean 'nesterov'?",
        ),
        (steepest.Spectral, {"step": 5}, "Spectral got an unknown argument 'step'; did you mean 'steps'?"),
        (steepest.Diagonal, {"eps_placment": "outside"}, "did you mean 'eps_placement'?"),
        (steepest.UnitLMO, {"scal": None}, "UnitLMO got an unknown argument 'scal'; did you mean 'scale'?"),
        (steepest.Max, {"steps": 5}, "Max got an unknown argument 'steps'. Known: none"),
        (
            steepest.param_groups,
            {"split_fuse": True},
            "param_groups got an unknown argument 'split_fuse'; did",
        ),
        (steepest.lr_range_test, {"lr_mx": 1.0}, "did you mean 'lr_max'?"),
        (steepest.Monitor, {"evry": 5}, "Monitor got an unknown argument 'evry'; did you mean 'every'?"),
        (Task, {"nme": "x"}, "Task got an unknown argument 'nme'; did you mean 'name'?"),
        (Paper, {"seed": (1,)}, "Paper got an unknown argument 'seed'; did you mean 'seeds'?"),
        (Claim, {"metrics": "x"}, "Claim got an unknown argument 'metrics'; did you mean 'metric'?"),
    ],
)
def test_misspelt_arguments_are_told(call: Any, misspelt: dict[str, Any], meant: str):
    with pytest.raises(TypeError, match=re.escape(meant)):
        call(**misspelt)


def test_misspelt_names_of_the_library_are_told():
    with pytest.raises(AttributeError, match="has no attribute 'Moun'; did you mean 'Muon'"):
        operator.attrgetter("Moun")(steepest)


def test_parts_are_values_as_before():
    part = steepest.EMA(0.9, nesterov=True)
    assert list(inspect.signature(steepest.EMA).parameters)[:2] == ["momentum", "nesterov"]
    assert copy.deepcopy(part) == pickle.loads(pickle.dumps(part)) == part
    assert steepest.param_groups(model=nn.Linear(2, 2))


def test_missing_arguments_are_told_by_python():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'model'"):
        steepest.param_groups()  # pyright: ignore[reportCallIssue]
