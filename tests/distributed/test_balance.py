"""Costs of matrices, and their division over ranks."""

import pytest
import torch
from torch import nn
from torch.nn import Parameter

import steepest
from steepest.distributed.balance import cost, divide_evenly, imbalance, waves
from steepest.distributed.kfac import layer_cost
from steepest.preconditioners.kfac.layers import find_layers
from steepest.rule import Rule

BLOCK = [(1536, 512), (512, 512), (2048, 512), (512, 2048)]
GPT_29M = BLOCK * 8
"""Matrices of the 29M-parameter GPT but its embedding, which usually is trained by AdamW."""


def costs(cls, shapes, **options):
    params = [Parameter(torch.empty(shape, device="meta")) for shape in shapes]
    optimizer = cls(params, lr=0.1, **options)
    rule = optimizer.recipe(optimizer.param_groups[0])
    return [cost(rule.for_shape(p.shape), (1, p.shape[0], p.shape[1])) for p in params]


@pytest.mark.parametrize(
    "cls", [steepest.Muon, steepest.MuAdam, steepest.SOAP, steepest.Shampoo, steepest.KLShampoo]
)
@pytest.mark.parametrize("ranks", [2, 3, 4, 8])
def test_gpt_is_balanced(cls, ranks):
    _, loads = divide_evenly(costs(cls, GPT_29M), ranks)
    assert imbalance(loads) <= 1.3


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_gpt_with_its_embedding_is_balanced_for_muon(ranks):
    _, loads = divide_evenly(costs(steepest.Muon, [(8192, 512), *GPT_29M]), ranks)
    assert imbalance(loads) <= 1.3


def test_one_matrix_above_the_share_of_a_rank_is_the_bound():
    """SOAP's factor of the embedding's long side alone is more than a quarter of the work, if it is kept."""
    items = costs(steepest.SOAP, [(8192, 512), *GPT_29M])
    _, loads = divide_evenly(items, 4)
    assert max(loads) == max(items) > 1.3 * sum(items) / 4
    items = costs(steepest.SOAP, [(8192, 512), *GPT_29M], max_precondition_dim=4096)
    assert imbalance(divide_evenly(items, 4)[1]) <= 1.3


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_layers_of_gpt_are_balanced_for_kfac(ranks):
    model = nn.ModuleList(nn.Linear(n, m, device="meta") for m, n in GPT_29M)
    model.append(nn.Embedding(8192, 512, device="meta"))
    layers = find_layers(model, {id(p) for p in model.parameters()})
    assert len(layers) == len(GPT_29M) + 1
    assert imbalance(divide_evenly([layer_cost(layer) for layer in layers], ranks)[1]) <= 1.3


def test_matrices_of_equal_cost_are_spread():
    owners, _ = divide_evenly(costs(steepest.Muon, GPT_29M), 4)
    for equal in (owners[0::4], owners[1::4], owners[2::4] + owners[3::4]):
        assert [equal.count(rank) for rank in range(4)] == [len(equal) // 4] * 4


def test_the_bound_of_the_greedy_division():
    generator = torch.Generator().manual_seed(0)
    for ranks in (2, 3, 5):
        for _ in range(20):
            items = torch.randint(1, 100, (12,), generator=generator).tolist()
            owners, loads = divide_evenly(items, ranks)
            assert [
                sum(c for c, o in zip(items, owners, strict=True) if o == r) for r in range(ranks)
            ] == loads
            assert max(loads) <= sum(items) / ranks + max(items)
            assert max(loads) - min(loads) <= max(items)


def test_earlier_loads_are_continued():
    first, loads = divide_evenly([5, 4], 2)
    second, total = divide_evenly([1, 1], 2, loads)
    assert (first, second, total) == ([0, 1], [1, 0], [6, 5])


def test_more_ranks_than_items():
    owners, loads = divide_evenly([7, 7], 4)
    assert len(set(owners)) == 2
    assert sorted(loads) == [0, 0, 7, 7]


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="ranks must be >= 1, got 0"):
        divide_evenly([1], 0)
    with pytest.raises(ValueError, match="one number for each of 3 ranks, got 1"):
        divide_evenly([1], 3, [0])
    with pytest.raises(ValueError, match="limit must be >= 1, got 0"):
        waves([1], 0)


def test_costs_grow_with_the_work():
    rule = Rule(norm=steepest.Spectral("newton_schulz", 5))
    assert cost(rule, (1, 1024, 512)) == cost(rule, (1, 512, 1024))
    assert cost(rule, (1, 512, 512)) < cost(rule, (1, 1024, 512)) < cost(rule, (1, 1024, 1024))
    assert cost(Rule(norm=steepest.Spectral("newton_schulz", 10)), (1, 512, 512)) > cost(rule, (1, 512, 512))
    gram = Rule(norm=steepest.Spectral("gram", 5))
    assert cost(gram, (1, 4096, 512)) < cost(rule, (1, 4096, 512))
    assert cost(gram, (1, 512, 512)) > cost(rule, (1, 512, 512))
    for shape in ((1, 4096, 512), (1, 512, 512)):
        assert cost(Rule(norm=steepest.Spectral("auto", 5)), shape) == min(
            cost(gram, shape), cost(rule, shape)
        )
    assert cost(rule, (8, 512, 512)) > 7 * cost(rule, (1, 512, 512)) - 2**24


def test_factors_cost_their_cube_whatever_the_buffers():
    rotated, blocked = (
        Rule(preconditioner=p) for p in (steepest.Eigenbasis(), steepest.Kronecker(max_dim=64))
    )
    assert cost(blocked, (1, 512, 512)) < cost(rotated, (1, 512, 512)) / 4
    square = cost(rotated, (1, 512, 512))
    assert abs(cost(rotated, (1, 512, 513)) - square) < 0.01 * square


def test_a_refresh_frequency_moves_no_owner():
    seldom, often = (Rule(preconditioner=steepest.Kronecker(frequency=f)) for f in (100, 1))
    assert cost(seldom, (1, 64, 64)) == cost(often, (1, 64, 64))


def test_waves_fill_up_to_the_limit():
    assert waves([3, 3, 3, 9, 1], 6) == [0, 0, 1, 2, 3]
    assert waves([], 6) == []
