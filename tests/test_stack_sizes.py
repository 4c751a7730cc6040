"""Large matrices on a CPU are stepped in stacks of bounded size, and the sizes do not show in the result."""

import pytest
import torch

from steepest import MuAdam, Muon, kinds, stepping


def _stepped(method, count, shape):
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for _ in range(count)]
    optimizer = method(params, lr=0.01)
    for _ in range(3):
        for p in params:
            p.grad = torch.randn(shape, generator=generator)
        optimizer.step()
    state = [value for p in params for value in optimizer.state[p].values()]
    return [p.detach() for p in params], state


@pytest.mark.parametrize("method", [Muon, MuAdam])
@pytest.mark.parametrize(("cached", "sizes"), [(1, [1] * 5), (40 * 500 * 2, [2, 2, 1]), (2**30, [5])])
def test_stacks_of_large_matrices_are_bounded(monkeypatch, method, cached, sizes):
    shape = (40, 500)
    assert shape[0] * shape[1] > kinds.SMALL
    expected = _stepped(method, 5, shape)
    seen = []
    form = stepping.form_buckets

    def recorded(*args):
        buckets = list(form(*args))
        seen.append(sorted((len(bucket.params) for bucket in buckets), reverse=True))
        return buckets

    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(kinds, "CACHED", cached)
    monkeypatch.setattr(kinds, "_kinds", {})
    monkeypatch.setattr(stepping, "form_buckets", recorded)
    found = _stepped(method, 5, shape)
    assert seen == [sizes] * 3
    for ours, theirs in zip(found[0] + found[1], expected[0] + expected[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
