"""Stop in the middle, save, load into a new process' worth of objects, and go on to the same bits."""

import tempfile
from pathlib import Path

import torch

import steepest


def build():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Tanh(), torch.nn.Linear(30, 5))
    return model, steepest.SOAP(model.parameters(), lr=3e-3, precondition_frequency=5)


def train(model, optimizer, steps):
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        x, y = torch.randn(16, 20, generator=generator), torch.randn(16, 5, generator=generator)
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()


model, optimizer = build()
train(model, optimizer, range(40))

first, first_optimizer = build()
train(first, first_optimizer, range(17))
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "checkpoint.pt"
    torch.save({"model": first.state_dict(), "optimizer": first_optimizer.state_dict()}, path)
    saved = torch.load(path, weights_only=True)

second, second_optimizer = build()
second.load_state_dict(saved["model"])
second_optimizer.load_state_dict(saved["optimizer"])
train(second, second_optimizer, range(17, 40))

same = all(torch.equal(a, b) for a, b in zip(model.parameters(), second.parameters(), strict=True))
print("resumed to the same bits:", same)
assert same
