"""A small convolutional network on scikit-learn's digits, trained by trainers and by plain loops."""

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

BATCH, PICTURES = 16, 128


class Network(nn.Module):
    """Convolutions, a norm, a hidden matrix and a head: every kind of group."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.GELU(), nn.Flatten(), nn.LayerNorm(72))
        self.hidden = nn.Linear(72, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(nn.functional.gelu(self.hidden(self.body(pictures))))


def network() -> Network:
    """The same weights at every call."""
    torch.manual_seed(0)
    return Network()


@cache
def digits() -> TensorDataset:
    pictures, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(pictures[:PICTURES], dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    return TensorDataset(pixels, torch.tensor(labels[:PICTURES]))


def loader() -> DataLoader:
    return DataLoader(digits(), batch_size=BATCH)
