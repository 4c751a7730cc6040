"""What only a GPU can show: no waiting for the device, capture in a graph, sizes beyond 2^31 entries.

That the numbers are right is tested by test_triton_steps.py, which runs on the GPU where there is one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from steepest import ANDI, AdamSANIA, AdamW, NormalizedSGD, SignSGD
from steepest.optimizer import RuleOptimizer

pytest.importorskip("triton", reason="Triton is not installed, which the package can do without")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SHAPES = [(257, 130), (64,), (3, 5, 7), (1000, 40), (40, 1000), ()]
METHODS = [
    lambda params, lr: ANDI(params, lr=lr, momentum_init="gradient", weight_decay=0.1),
    lambda params, lr: AdamSANIA(params, lr=lr),
    lambda params, lr: NormalizedSGD(params, lr=lr, momentum=0.9),
    lambda params, lr: SignSGD(params, lr=lr, weight_decay=0.1),
    lambda params, lr: AdamW(params, lr=lr),
]


def parameters(dtype: torch.dtype = torch.float32) -> list[Parameter]:
    torch.manual_seed(0)
    return [Parameter(torch.randn(shape).to(dtype).cuda()) for shape in SHAPES]


def give_gradients(params: list[Parameter], seed: int) -> None:
    """Write into the gradients there are, so that addresses stay; create them at first."""
    source = torch.Generator("cuda").manual_seed(seed)
    for p in params:
        grad = torch.randn(p.shape, generator=source, device="cuda").to(p.dtype)
        if p.grad is None:
            p.grad = grad
        else:
            p.grad.copy_(grad)


@contextmanager
def no_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def results(optimizer: RuleOptimizer, params: list[Parameter]) -> list[Tensor]:
    states = [value for p in params for value in optimizer.state[p].values()]
    return [x.detach().double() for x in (*params, *states)]


def assert_close(ours: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for a, b in zip(ours, expected, strict=True):
        assert (a - b).norm() <= tolerance * b.norm().clamp(min=1e-30)


@pytest.mark.parametrize("make", METHODS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_optimizers_agree_with_the_plain_path(make, dtype, tolerance):
    outcome = []
    for fused in (True, False):
        params = parameters(dtype)
        optimizer = make(params, 0.01)
        optimizer.param_groups[0]["fused"] = fused
        for seed in range(20):
            give_gradients(params, seed)
            optimizer.step()
        outcome.append(results(optimizer, params))
    assert_close(outcome[0], outcome[1], tolerance)


@pytest.mark.parametrize("make", METHODS)
@pytest.mark.parametrize("tensor_lr", [False, True])
def test_no_step_waits_for_the_device(make, tensor_lr):
    """Not even one that finds new gradients at new addresses, after the first has compiled."""
    params = parameters()
    optimizer = make(params, torch.tensor(0.01, device="cuda") if tensor_lr else 0.01)
    give_gradients(params, 0)
    optimizer.step()
    with no_waiting():
        optimizer.step()
        for p in params:
            p.grad = torch.ones_like(p)
        optimizer.step()


@pytest.mark.parametrize("make", METHODS)
def test_a_captured_step_replays_the_same_steps(make):
    """With a learning rate on the device, which may change between replays; and captured again elsewhere."""
    eager, captured = parameters(), parameters()
    outcome = []
    for params in (eager, captured):
        lr = torch.tensor(0.01, device="cuda")
        optimizer = make(params, lr)
        graph = None
        for t in range(6):
            lr.fill_(0.01 / (t + 1))
            give_gradients(params, t)
            if params is eager or t < 2:
                optimizer.step()
                continue
            if graph is None:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    optimizer.step()
            graph.replay()
            # Nothing a graph needs may lie where later work writes.
            torch.full((2**20,), -1, dtype=torch.int64, device="cuda")
        outcome.append(results(optimizer, params))
    assert_close(outcome[1], outcome[0], 1e-6)


def test_a_step_on_a_side_stream():
    """A table made on one stream is not read by another before it has arrived."""
    params, expected = parameters(), parameters()
    optimizer, reference = ANDI(params), ANDI(expected)
    for t in range(4):
        for own in (params, expected):
            give_gradients(own, t)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            optimizer.step()
        torch.cuda.current_stream().wait_stream(stream)
        reference.step()
    assert all(torch.equal(a, b) for a, b in zip(params, expected, strict=True))


@pytest.mark.parametrize("make", METHODS[:3])
def test_offsets_beyond_32_bits(make):
    """More than 2^31 entries: where all gradients are one, all entries move alike, the last included."""
    rows, columns = 2**16 + 64, 2**15
    if torch.cuda.mem_get_info()[0] < 16 * rows * columns:
        pytest.skip("needs 35 GB of free memory")
    param = Parameter(torch.zeros(rows, columns, dtype=torch.bfloat16, device="cuda"))
    param.grad = torch.ones_like(param)
    optimizer = make([param], 1000.0)
    optimizer.param_groups[0]["fused"] = True
    optimizer.step()
    moved = param.detach()
    assert moved[0, 0] != 0
    assert (moved[-64:] == moved[0, 0]).all()
    assert (moved[rows // 2] == moved[0, 0]).all()
