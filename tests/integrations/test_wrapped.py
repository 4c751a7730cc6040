"""What looks at an optimizer sees through the wrappers of trainers."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

import steepest
from steepest.unwrapping import innermost


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4))


def test_accelerates_wrapper_is_looked_through_and_left_alone():
    accelerate = pytest.importorskip("accelerate")
    network = model()
    plain = steepest.Muon(steepest.param_groups(network), lr=0.02)
    wrapped = accelerate.Accelerator(cpu=True).prepare_optimizer(plain)
    assert innermost(wrapped) is plain
    groups = steepest.param_groups(network)
    weights = copy.deepcopy(network.state_dict())
    assert groups.table(wrapped) == groups.table(plain)
    assert groups.table(wrapped).splitlines()[2].split()[3] == "Muon"
    assert {p for g in plain.param_groups for p in g["params"]} == set(network.parameters())
    assert all(torch.equal(weights[name], value) for name, value in network.state_dict().items())

    seen: list[int] = []
    steepest.Monitor(wrapped, lambda values, step: seen.append(step), every=1)
    network(torch.ones(2, 4)).square().sum().backward()
    wrapped.step()
    assert seen == [1]


def test_what_steps_another_optimizer_is_refused():
    class Ahead(Optimizer):
        def __init__(self, base: Optimizer) -> None:
            super().__init__(base.param_groups, {})
            self.base = base

    network = model()
    ahead = Ahead(torch.optim.SGD(network.parameters(), lr=0.1))
    with pytest.raises(ValueError, match=r"Ahead steps another .* its attribute 'base'"):
        steepest.Monitor(ahead, print)
    with pytest.raises(ValueError, match="give that one"):
        steepest.param_groups(network).table(ahead)
