"""Moving many weights in few calls: bit for bit what moving each would give."""

from typing import Any

import pytest
import torch

from steepest import averaging
from steepest.apply import apply_, apply_all_
from steepest.rounding import NEAREST
from steepest.rule import Rule


def tensors(count: int, seed: int, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 3, generator=generator).to(dtype) for _ in range(count)]


@pytest.mark.parametrize("decay", ["decoupled", "after", "l2", "cautious"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("lr", [0.3, torch.tensor(0.3)], ids=["number", "tensor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_many_move_as_each_would(decay, weight_decay, lr, dtype):
    rule, hypers = Rule(decay=decay), {"lr": lr, "weight_decay": weight_decay}
    together, apart = tensors(5, 0, dtype), tensors(5, 0, dtype)
    directions = tuple(tensors(5, 1))
    apply_all_(together, directions, hypers, rule, 0, [NEAREST] * 5)
    for param, direction in zip(apart, directions, strict=True):
        apply_(param, direction, hypers, rule)
    assert all(torch.equal(a, b) for a, b in zip(together, apart, strict=True))
    assert not torch.equal(together[0], tensors(5, 0, dtype)[0])


@pytest.mark.parametrize("step", [1, 7])
def test_averages_follow_as_each_would(step):
    params, hypers = tensors(4, 0), {"ema": 0.9, "step": step}
    together: list[dict[str, Any]] = [{"average": x} for x in tensors(4, 1)]
    apart: list[dict[str, Any]] = [{"average": x} for x in tensors(4, 1)]
    averaging.update_all_(params, together, hypers)
    for param, own in zip(params, apart, strict=True):
        averaging.update_(param, own, hypers)
    assert all(torch.equal(a["average"], b["average"]) for a, b in zip(together, apart, strict=True))
