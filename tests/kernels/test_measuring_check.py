"""The check of gradients that measures rows and columns on its way, and the step that begins with them."""

import pytest
import torch
from torch.nn import Parameter

import steepest
from steepest import kinds
from steepest.kernels import native
from steepest.kernels.native import scratch
from steepest.kernels.native.kernel import NativeKernel
from steepest.kernels.native.library import Unavailable, load
from toys import copies

pytestmark = pytest.mark.skipif(isinstance(load(), Unavailable), reason="no native kernels here")

EXTENTS = [
    (1, 1, 1),
    (1, 1, 37),
    (1, 37, 1),
    (3, 33, 65),
    (1, 5, 5000),
    (1, 600, 500),
    (2, 700, 130),
    (1, 2, 70_000),
]
"""Matrices that one thread reads and that all read together, in ones and stacks."""
DTYPES = (torch.float32, torch.float64, torch.bfloat16)


@pytest.fixture(params=[1, 2], ids=lambda n: f"{n} threads")
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def gradients(dtype, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    return [
        (scale * torch.randn(extents, generator=generator, dtype=torch.float64)).to(dtype)
        for extents in EXTENTS
    ]


def sums_at(address, extents):
    """Sums of squares of rows and of columns, as they lie in memory."""
    matrices, rows, columns = extents
    count = matrices * (rows + columns)
    held = scratch._own.sums
    start = address - held.data_ptr()
    return held[start : start + 8 * count].view(torch.float64).reshape(matrices, rows + columns).clone()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sums_of_squares(dtype, threads):
    grads = gradients(dtype)
    asked = [None if i == 3 else extents for i, extents in enumerate(EXTENTS)]
    finite, rest, sums = native.all_finite(grads, asked)
    assert finite
    assert not rest
    assert [address != 0 for address in sums] == [extents is not None for extents in asked]
    for grad, address, extents in zip(grads, sums, asked, strict=True):
        if extents is not None:
            squares = grad.double() ** 2
            expected = torch.cat([squares.sum(2), squares.sum(1)], 1)
            tolerance = 1e-13 if dtype == torch.float64 else 2e-6
            torch.testing.assert_close(sums_at(address, extents), expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_bad_entry_escapes(dtype, threads):
    for at, where in ((0, 0), (2, 36), (3, 64), (4, -1), (5, 150_001), (6, -1), (7, 69_999)):
        for bad in (float("nan"), float("inf"), -float("inf")):
            grads = gradients(dtype)
            grads[at].view(-1)[where] = bad
            assert not native.all_finite(grads, EXTENTS).finite


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_squares_out_of_range_are_finite_gradients(dtype, threads):
    largest = torch.finfo(dtype).max
    assert native.all_finite(
        [torch.full(extents, largest, dtype=dtype) for extents in EXTENTS], EXTENTS
    ).finite


def test_half_precision_is_checked_but_not_measured():
    finite, rest, sums = native.all_finite([torch.ones(3, 4).half()], [(1, 3, 4)])
    assert finite
    assert (rest, sums) == ([], [0])


def steps(policy, dtype, *, scale=1.0, count=2, **settings):
    """Weights and momenta after some steps of ANDI, in two groups of stacks."""
    generator = torch.Generator().manual_seed(1)
    params = [Parameter(torch.randn(e, generator=generator).to(dtype)) for e in EXTENTS]
    groups = [{"params": params[:4], "batch_dims": 1}, {"params": params[4:], "batch_dims": 1, "lr": 0.05}]
    optimizer = steepest.ANDI(groups, lr=0.02, threshold=0, nonfinite=policy, **settings)
    for seed in range(count):
        for param, grad in zip(params, gradients(dtype, scale * (1 + seed)), strict=True):
            param.grad = grad
        optimizer.step()
    return copies(params) + copies([optimizer.state[p]["momentum_buffer"] for p in params])


@pytest.mark.parametrize(
    ("scale", "mixing"), [(1.0, None), (1.0, "lateral"), (1e-30, None), (1e30, None)], ids=str
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_checked_and_unchecked_steps_agree(dtype, scale, mixing, threads):
    unchecked = steps("propagate", dtype, scale=scale, mixing=mixing)
    reference = steps("propagate", dtype, scale=scale, mixing=mixing, fused=False)
    tolerance = {torch.float64: 1e-12, torch.float32: 3e-6, torch.bfloat16: 1e-2}[dtype]
    checked = steps("raise", dtype, scale=scale, mixing=mixing)
    for found, alike, expected in zip(checked, unchecked, reference, strict=True):
        if threads == 1:
            assert torch.equal(found, alike)
        near = tolerance * float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=near)


def test_checked_steps_begin_with_the_sums(monkeypatch):
    given = []
    step = NativeKernel.__call__

    def recorded(self, params, grads, states, hypers, sums=None):
        given.append(sums)
        step(self, params, grads, states, hypers, sums)

    monkeypatch.setattr(NativeKernel, "__call__", recorded)
    steps("raise", torch.float32, count=1)
    steps("propagate", torch.float32, count=1)
    steps("raise", torch.float32, count=1, maximize=True)
    assert [sums is not None and all(sums) for sums in given] == [True, True, False, False, True, True]


def test_policies_of_two_groups_share_one_check():
    first, second = (Parameter(torch.ones(20, 30)) for _ in range(2))
    groups = [{"params": [first]}, {"params": [second], "nonfinite": "skip"}]
    optimizer = steepest.ANDI(groups, lr=0.1)
    first.grad, second.grad = torch.ones(20, 30), torch.full((20, 30), float("nan"))
    optimizer.step()  # left out
    assert torch.equal(first, torch.ones(20, 30))
    first.grad, second.grad = second.grad, first.grad
    with pytest.raises(FloatingPointError, match="nothing was changed"):
        optimizer.step()
    second.grad = first.grad
    with pytest.raises(FloatingPointError, match="parameter 0 of shape"):
        optimizer.step()
    assert not any(optimizer.state.values())
    first.grad = second.grad = torch.ones(20, 30)
    optimizer.step()
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.ones(20, 30))


def test_kinds_follow_their_groups():
    """What a kernel depends on may be changed between steps."""
    param = Parameter(torch.randn(20, 30))
    optimizer = steepest.ANDI([param], lr=0.1)
    [group] = optimizer.param_groups
    param.grad = torch.randn(20, 30)
    seen = []
    for fused, maximize in ((None, False), (False, False), (None, True), (None, False)):
        group["fused"], group["maximize"] = fused, maximize
        [member] = kinds.with_kinds(optimizer._members(), optimizer._rules())
        seen.append(member.kind.kernel)
    assert seen[0] is seen[3] is not None
    assert seen[1] is None
    assert seen[2] is not None
    assert seen[2] is not seen[0]


def test_few_kinds_are_kept(monkeypatch):
    monkeypatch.setattr(kinds, "_kinds", {})
    monkeypatch.setattr(kinds, "KEPT", 5)
    param = Parameter(torch.randn(20, 30))
    param.grad = torch.randn(20, 30)
    for i in range(20):
        steepest.AdamW([param], eps=1e-8 * (1 + i)).step()
        assert len(kinds._kinds) <= 6


def test_numbers_on_tensors_are_looked_at_each_time(monkeypatch):
    monkeypatch.setattr(kinds, "_kinds", {})
    param = Parameter(torch.randn(20, 30))
    param.grad = torch.randn(20, 30)
    steepest.AdamW([param], betas=(torch.tensor(0.9), 0.99)).step()
    assert not kinds._kinds
