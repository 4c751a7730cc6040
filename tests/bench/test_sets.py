from __future__ import annotations

import torch

from bench.tiny import TINY
from steepest.bench.sets import SETS, Gradients, matrices


def test_the_sets_have_the_sizes_they_are_named_for() -> None:
    sizes = {name: found.entries for name, found in SETS.items()}
    block = 12 * 512**2 + 2 * 512
    assert sizes["gpt"] == 8192 * 512 + 8 * block + 512
    assert sizes["block"] == block
    assert sizes["resnet"] == 11_173_962  # torchvision's 11,181,642 with a 7 x 7 stem: 3 x 3 has 7,680 fewer
    assert len(SETS["small"].hidden) == 500
    assert matrices(3, 8).entries == 192


def test_every_optimizer_gets_the_same_weights_and_gradients_and_each_step_has_its_own() -> None:
    gradients = Gradients(TINY)
    first, second = gradients.parameters(), gradients.parameters(flat=True)
    gradients.write(first, 3)
    gradients.write(second, 3)
    for p, q in zip(first.all, second.all, strict=True):
        assert p.grad is not None
        assert q.grad is not None
        torch.testing.assert_close(p.flatten(), q.flatten(), rtol=0, atol=0)
        torch.testing.assert_close(p.grad.flatten(), q.grad.flatten(), rtol=0, atol=0)
        assert q.ndim <= 2
    before = [p.grad.clone() for p in first.all if p.grad is not None]
    gradients.write(first, 4)
    for p, old in zip(first.all, before, strict=True):
        assert p.grad is not None
        change = (p.grad - old).norm() / old.norm()
        assert 0.1 < change < 2


def test_a_gradient_is_given_back_to_a_parameter_that_lost_it() -> None:
    gradients = Gradients(TINY)
    params = gradients.parameters()
    params.hidden[0].grad = None
    gradients.write(params, 0)
    assert params.hidden[0].grad is params.gradients[1]


def test_gradients_have_a_part_of_low_rank() -> None:
    gradients = Gradients(matrices(1, 128))
    params = gradients.parameters()
    gradients.write(params, 0)
    values = torch.linalg.svdvals(params.gradients[0])
    assert values[0] > 2 * values[8]
    assert params.matrices == params.all
    assert params.rest == []
