"""A task of your own in the race: `steepest race own_task:task`, run here for a few steps."""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_wine
from torch.nn.functional import cross_entropy

from steepest.race import Task


def data():
    features, labels = load_wine(return_X_y=True)
    x = torch.tensor(features, dtype=torch.float32)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return ((x - x.mean(0)) / x.std(0))[order], torch.tensor(labels)[order]


def model(data):
    return torch.nn.Sequential(torch.nn.Linear(13, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))


def batch(data, generator, size):
    rows = torch.randint(128, (size,), generator=generator)
    return data[0][rows], data[1][rows]


def loss(model, batch):
    return cross_entropy(model(batch[0]), batch[1])


def evaluate(model, data):
    scores = model(data[0][128:])
    right = scores.argmax(1) == data[1][128:]
    return {
        "val_loss": cross_entropy(scores, data[1][128:]).item(),
        "val_accuracy": right.float().mean().item(),
    }


task = Task(
    name="wine",
    version="1",
    description="a perceptron on scikit-learn's wine data, cross-entropy",
    data=data,
    model=model,
    batch=batch,
    loss=loss,
    evaluate=evaluate,
    steps=60,
    batch_size=32,
    auxiliary=("2.weight",),  # the output head
)

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as out:
        call = ["race", "own_task:task", "--optimizers", "Muon", "--seeds", "2", "--out", out]
        subprocess.run([sys.executable, "-m", "steepest", *call], check=True, cwd=Path(__file__).parent)
