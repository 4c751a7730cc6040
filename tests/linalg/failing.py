"""An eigensolver that fails on demand and writes down how it was called."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from steepest.linalg.symmetric import LinAlgError

solve = torch.linalg.eigh


class FailingEigh:
    """Replaces `torch.linalg.eigh`; `fails(a)` says for each matrix whether it does, `how` it does so."""

    def __init__(self, fails: Callable[[Tensor], bool], how: str = "raise"):
        self.fails, self.how, self.calls = fails, how, []

    def __call__(self, a: Tensor):
        self.calls.append((tuple(a.shape), a.dtype))
        batch = a.reshape(-1, *a.shape[-2:])
        bad = torch.tensor([self.fails(m) for m in batch])
        if self.how == "raise" and bad.any():
            raise LinAlgError("the algorithm failed to converge")
        values, vectors = solve(a)
        if self.how == "values":
            values = values.masked_fill(bad.reshape(a.shape[:-2])[..., None], float("nan"))
        if self.how == "vectors":
            vectors = vectors.masked_fill(bad.reshape(a.shape[:-2])[..., None, None], float("inf"))
        return values, vectors


def install(monkeypatch: pytest.MonkeyPatch, fails: Callable[[Tensor], bool], how: str) -> FailingEigh:
    failing = FailingEigh(fails, how)
    monkeypatch.setattr(torch.linalg, "eigh", failing)
    return failing


def is_diagonal(a: Tensor) -> bool:
    return bool((a - a.diagonal().diag() == 0).all())
