"""Refreshes in the background: the lagged formula to the bit, whatever the worker does or has not done."""

import copy
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from optimizers.trajectories import assert_same, follow, gradients, start
from references.kl import kl_shampoo, kl_soap
from references.shampoo import one_sided_shampoo, shampoo
from references.soap import soap, splus
from steepest import KLSOAP, SOAP, KLShampoo, OneSidedShampoo, Shampoo, SPlus, background
from steepest.linalg.symmetric import LinAlgError

METHODS = [SOAP, KLShampoo, KLSOAP, SPlus, Shampoo, OneSidedShampoo]
every_method = pytest.mark.parametrize("make", METHODS)
LATE: dict[str, Any] = {"precondition_frequency": 3, "refresh_timing": "background"}
SHAPES = [(5, 4), (9, 4), (5, 4), (7, 7), (5, 4)]
STEPS = 11


def problem(steps: int = STEPS, shapes: list[Any] = SHAPES) -> tuple[list[Parameter], list[list[Tensor]]]:
    params = [Parameter(start(shape, seed=i)) for i, shape in enumerate(shapes)]
    paths = [gradients(shape, steps, seed=i) for i, shape in enumerate(shapes)]
    return params, [list(step) for step in zip(*paths, strict=True)]


def train(
    optimizer: Any,
    params: list[Parameter],
    grads: list[list[Tensor]],
    after_step: Callable[[], None] = lambda: None,
) -> None:
    for step in grads:
        for param, g in zip(params, step, strict=True):
            param.grad = g.clone()
        optimizer.step()
        after_step()


def result(optimizer: Any, params: list[Parameter]) -> list[Tensor]:
    """All weights and all state."""
    return [p.detach() for p in params] + [x for p in params for _, x in sorted(optimizer.state[p].items())]


def same_bits(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def wait() -> None:
    """Let the worker finish all that it has been given."""
    for job in list(background._under_way.values()):
        job.future.exception()


def without_worker(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(background, "_start", lambda *_: None)


@cache
def foreground(make: Any, **options: Any) -> list[Tensor]:
    """What a run without any worker gives."""
    params, grads = problem()
    optimizer = make(params, **{**LATE, **options})
    with pytest.MonkeyPatch.context() as patch:
        without_worker(patch)
        train(optimizer, params, grads)
    return result(optimizer, params)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Of everything computed from here on: whether in the worker."""
    where: list[bool] = []
    run = background._run

    def noting(*args: Any) -> Any:
        where.append(threading.current_thread() is not threading.main_thread())
        return run(*args)

    monkeypatch.setattr(background, "_run", noting)
    yield where
    wait()


@pytest.mark.parametrize("frequency", [1, 3, 8])
@pytest.mark.parametrize(
    ("make", "reference", "options"),
    [
        (SOAP, soap, {"lr": 0.05}),
        (SOAP, soap, {"lr": 0.05, "eps": 1e-3, "include_current": True}),
        (KLShampoo, kl_shampoo, {"lr": 0.05}),
        (KLSOAP, kl_soap, {"lr": 0.05}),
        (SPlus, splus, {"lr": 0.1, "betas": (0.9, 0.95)}),
        (Shampoo, shampoo, {"lr": 0.1, "eps": 1e-3}),
        (Shampoo, shampoo, {"lr": 0.1, "eps": 1e-3, "betas": (0.9, 0.95), "grafting": "adam"}),
        (OneSidedShampoo, one_sided_shampoo, {"lr": 0.1, "eps": 1e-3, "betas": (0.9, 0.95)}),
    ],
)
def test_equals_a_plain_restatement_with_statistics_one_refresh_late(make, reference, options, frequency):
    w0, grads = start((8, 8)), gradients((8, 8), 24)
    options = {**options, "precondition_frequency": frequency}
    expected, together = (reference(w0, grads, **options, lag=lag) for lag in (True, False))
    if make is SPlus:
        (expected, _), (together, _) = expected, together
    found = follow(make, w0, grads, **options, refresh_timing="background")
    assert_same(found, expected, 1e-9)
    assert not torch.allclose(found[-1], together[-1], rtol=1e-6)


@every_method
def test_a_fast_worker_does_all_but_the_first_bases(make, computed):
    expected = foreground(make)
    computed.clear()
    params, grads = problem()
    optimizer = make(params, **LATE)
    train(optimizer, params, grads, wait)
    assert computed
    assert all(computed)
    assert same_bits(result(optimizer, params), expected)


@every_method
def test_a_slow_worker_changes_nothing(make, monkeypatch):
    apart = background._apart

    def slow(*args: Any) -> Any:
        time.sleep(0.003)
        return apart(*args)

    monkeypatch.setattr(background, "_apart", slow)
    params, grads = problem()
    optimizer = make(params, **LATE)
    train(optimizer, params, grads)
    assert same_bits(result(optimizer, params), foreground(make))


@every_method
def test_a_worker_that_is_busy_with_something_else_is_not_waited_for(make, computed):
    expected = foreground(make)
    params, grads = problem()
    optimizer = make(params, **LATE)
    begun, released = threading.Event(), threading.Event()
    background._worker().submit(lambda: (begun.set(), released.wait()))
    begun.wait()
    computed.clear()
    try:
        train(optimizer, params, grads)
    finally:
        released.set()
    assert computed
    assert not any(computed)
    assert same_bits(result(optimizer, params), expected)


@every_method
def test_a_worker_that_fails_changes_nothing(make, monkeypatch):
    def fail(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(background, "_apart", fail)
    params, grads = problem()
    optimizer = make(params, **LATE)
    train(optimizer, params, grads, wait)
    assert same_bits(result(optimizer, params), foreground(make))


def test_a_system_without_threads_changes_nothing(monkeypatch):
    def refuse() -> Any:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(background, "_worker", refuse)
    params, grads = problem()
    optimizer = SOAP(params, **LATE)
    train(optimizer, params, grads)
    assert same_bits(result(optimizer, params), foreground(SOAP))


@pytest.mark.parametrize("make", [SPlus, Shampoo])
def test_fallbacks_in_the_worker_are_counted(make, monkeypatch):
    """float32 eigensolvers fail in the worker: float64 takes over there, and is counted when it lands."""
    params = [Parameter(start((6, 6)).float())]
    grads = [[g.float()] for g in gradients((6, 6), 4)]
    optimizer = make(params, **LATE)
    train(optimizer, params, grads[:1], wait)
    eigh = torch.linalg.eigh

    def failing(a: Tensor) -> Any:
        if threading.current_thread() is not threading.main_thread() and a.dtype == torch.float32:
            raise LinAlgError("no convergence")
        return eigh(a)

    monkeypatch.setattr(torch.linalg, "eigh", failing)
    background._under_way.clear()
    train(optimizer, params, grads[1:3], wait)
    assert optimizer.state[params[0]]["fallbacks"].item() == 0
    for _ in range(3):
        train(optimizer, params, grads[3:], wait)
    assert optimizer.state[params[0]]["fallbacks"].item() == 2


@every_method
@pytest.mark.parametrize("cut", [1, 4, 6])
@pytest.mark.parametrize("way", ["state_dict", "deepcopy", "pickle"])
def test_goes_on_to_the_bit_from_any_moment(make, cut, way):
    params, grads = problem()
    optimizer = make(params, **LATE)
    train(optimizer, params, grads[:cut])
    if way == "deepcopy":
        twins, resumed = copy.deepcopy((params, optimizer))
    else:
        buffer = io.BytesIO()
        torch.save((params, optimizer.state_dict() if way == "state_dict" else optimizer), buffer)
        buffer.seek(0)
        twins, resumed = torch.load(buffer, weights_only=False)
        if way == "state_dict":
            saved, resumed = resumed, make(twins, **LATE)
            resumed.load_state_dict(saved)
    train(optimizer, params, grads[cut:])
    train(resumed, twins, grads[cut:])
    expected = foreground(make)
    assert same_bits(result(optimizer, params), expected)
    assert same_bits(result(resumed, twins), expected)


def test_going_back_to_a_checkpoint_takes_nothing_of_the_time_after_it():
    params, grads = problem()
    optimizer = SOAP(params, **LATE)
    train(optimizer, params, grads[:5], wait)
    saved, weights = copy.deepcopy(optimizer.state_dict()), [p.detach().clone() for p in params]
    train(optimizer, params, [[-g for g in step] for step in grads[5:9]], wait)
    optimizer.load_state_dict(saved)
    with torch.no_grad():
        for p, w in zip(params, weights, strict=True):
            p.copy_(w)
    train(optimizer, params, grads[5:], wait)
    assert same_bits(result(optimizer, params), foreground(SOAP))


@pytest.mark.parametrize("name", ["left_pending", "left_root"])
@pytest.mark.parametrize("seen", [True, False])
def test_what_others_write_into_the_state_is_used(name, seen):
    """In place, and in a way that version counters do not see."""
    runs = []
    for worker in (True, False):
        params, grads = problem()
        optimizer = Shampoo(params, **LATE, eps=1e-3)
        with pytest.MonkeyPatch.context() as patch:
            if not worker:
                without_worker(patch)
            train(optimizer, params, grads[:4], wait)
            state = optimizer.state[params[0]][name]
            (state if seen else state.data).mul_(2)
            train(optimizer, params, grads[4:], wait)
        runs.append(result(optimizer, params))
    assert same_bits(*runs)
    assert not same_bits(runs[0], foreground(Shampoo, eps=1e-3))


def test_another_eps_before_the_roots_are_due_is_used():
    runs = []
    for worker in (True, False):
        params, grads = problem()
        optimizer = Shampoo(params, **LATE, eps=1e-3)
        with pytest.MonkeyPatch.context() as patch:
            if not worker:
                without_worker(patch)
            train(optimizer, params, grads[:4], wait)
            optimizer.param_groups[0]["eps"] = 1e-2
            train(optimizer, params, grads[4:], wait)
        runs.append(result(optimizer, params))
    assert same_bits(*runs)


@every_method
def test_steps_that_stack_other_parameters_change_nothing(make):
    """A parameter alone, or with others of its shape that skip some steps."""
    runs = []
    for worker in (True, False):
        params, grads = problem()
        optimizer = make(params, **LATE)
        with pytest.MonkeyPatch.context() as patch:
            if not worker:
                without_worker(patch)
            for t, step in enumerate(grads):
                for i, (p, g) in enumerate(zip(params, step, strict=True)):
                    p.grad = None if (t + i) % 5 == 0 else g.clone()
                optimizer.step()
        runs.append(result(optimizer, params))
    assert same_bits(*runs)


@pytest.mark.parametrize("options", [{"max_precondition_dim": 4}, {"grafting": "adam"}])
def test_blocks_and_grafts(options, computed):
    expected = foreground(Shampoo, **options)
    computed.clear()
    params, grads = problem()
    optimizer = Shampoo(params, **options, **LATE)
    train(optimizer, params, grads, wait)
    assert all(computed)
    assert same_bits(result(optimizer, params), expected)


def test_stacks_of_matrices_in_one_tensor_move_as_the_matrices_alone():
    shapes = [(5, 4)] * 3
    params, grads = problem(shapes=shapes)
    stack = Parameter(torch.stack([p.detach() for p in params]))
    alone = SOAP(params, **LATE)
    stacked = SOAP([{"params": [stack], "batch_dims": 1}], **LATE)
    train(alone, params, grads)
    train(stacked, [stack], [[torch.stack(step)] for step in grads])
    torch.testing.assert_close(stack, torch.stack([p.detach() for p in params]), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (4,), (1, 4)])
def test_shapes_that_are_hardly_matrices(shape):
    w0, grads = start(shape), gradients(shape, 9)
    options: dict[str, Any] = {"lr": 0.1, "eps": 1e-3, "precondition_frequency": 2}
    found = follow(Shampoo, w0, grads, **options, refresh_timing="background")
    assert_same(found, shampoo(w0, grads, **options, lag=True), 1e-9)


def test_optimizers_side_by_side_do_not_meet():
    runs = [(make, *problem()) for make in METHODS]
    optimizers = [make(params, **LATE) for make, params, _ in runs]
    for t in range(STEPS):
        for optimizer, (_, params, grads) in zip(optimizers, runs, strict=True):
            train(optimizer, params, grads[t : t + 1])
    for optimizer, (make, params, _) in zip(optimizers, runs, strict=True):
        assert same_bits(result(optimizer, params), foreground(make)), make


@every_method
@pytest.mark.parametrize("timing", ["together", "staggered"])
def test_other_timings_need_no_worker_and_no_memory(make, timing, monkeypatch):
    def refuse(*_: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(background, "_start", refuse)
    params, grads = problem(4)
    optimizer = make(params, **{**LATE, "refresh_timing": timing})
    train(optimizer, params, grads)
    assert not any("pending" in name for p in params for name in optimizer.state[p])


def test_jobs_are_forgotten_with_their_optimizer():
    before = set(background._under_way)
    params, grads = problem(2)
    optimizer = SOAP(params, **LATE)
    train(optimizer, params, grads, wait)
    assert len(set(background._under_way) - before) == 2 * len(params)
    params.clear()
    del optimizer, grads
    assert set(background._under_way) <= before


FORK = """
import os, sys, torch, steepest
from steepest import background

def train(count):
    for _ in range(count):
        for p in params:
            p.grad = torch.randn(p.shape, generator=noise)
        optimizer.step()

noise = torch.Generator().manual_seed(0)
params = [torch.nn.Parameter(torch.ones(6, 5)), torch.nn.Parameter(torch.ones(4, 4))]
optimizer = steepest.SOAP(params, precondition_frequency=3, refresh_timing="background")
train(5)
assert len(background._under_way) == 4
child = os.fork()
if child == 0:
    assert not background._under_way
train(6)
assert len(background._under_way) == 4
torch.save([p.detach() for p in params], os.path.join(sys.argv[1], "child" if child == 0 else "parent"))
if child == 0:
    background._worker().shutdown()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_forked_child_goes_on_with_a_worker_of_its_own(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, str(tmp_path)], check=True, env=environment, timeout=120
    )
    assert same_bits(torch.load(tmp_path / "parent"), torch.load(tmp_path / "child"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@every_method
def test_a_stream_of_its_own_gives_the_same(make):
    runs = []
    for worker in (True, False):
        params, grads = problem(shapes=[(300, 200), (200, 200), (300, 200)])
        params = [Parameter(p.detach().cuda().float()) for p in params]
        grads = [[g.cuda().float() for g in step] for step in grads]
        optimizer = make(params, **LATE)
        with pytest.MonkeyPatch.context() as patch:
            if not worker:
                without_worker(patch)
            train(optimizer, params, grads)
        runs.append(result(optimizer, params))
    assert same_bits(*runs)
