"""K-FAC on replicas that each see a share of the batch: the steps of one process that sees all of it."""

from copy import deepcopy
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from distributed.harness import run
from steepest import KFAC
from steepest.distributed import counting, gather_state, split_work
from steepest.optimizers import kfac

BATCH, STEPS = 24, 7


class Net(nn.Module):
    """Every kind of layer, and parameters for the auxiliary rule."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.conv = nn.Conv2d(1, 3, 3)
        self.mix = nn.Linear(10, 5)
        self.norm = nn.LayerNorm(5)
        self.head = nn.Linear(5, 2, bias=False)

    def forward(self, index, image):
        x = torch.cat([self.embed(index), self.conv(image).mean((2,)).flatten(1)], 1)
        return self.head(self.norm(torch.tanh(self.mix(x))))


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().double()


def batch(step):
    generator = torch.Generator().manual_seed(step)
    index = torch.randint(0, 6, (BATCH,), generator=generator)
    return index, torch.randn(BATCH, 1, 5, 4, generator=generator, dtype=torch.float64)


def train(model, optimizer, share, loss_average, steps=range(STEPS)):
    for step in steps:
        optimizer.zero_grad()
        losses = model(*(x[share] for x in batch(step))).square().sum(1)
        (losses.mean() if loss_average else losses.sum()).backward()
        optimizer.step()


def settings(loss_average, **other):
    return {"lr": 0.05, "loss_average": loss_average, "precondition_frequency": 3, "damping": 1e-2, **other}


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def follow(loss_average, other):
    """How far this rank is from one process, and whether all ranks are equal bit for bit."""
    world, rank = dist.get_world_size(), dist.get_rank()
    alone, model = network(), network()
    options = settings(loss_average, **other)
    one = KFAC(alone, **options)
    with patch.object(kfac, "require_one_process", lambda: None):  # the same on every rank
        for step in range(STEPS):
            one.zero_grad()
            losses = alone(*batch(step)).square().sum(1)
            (losses.mean() if loss_average else losses.sum()).backward()
            if not loss_average:  # replicas average the gradients of their sums
                for p in alone.parameters():
                    assert p.grad is not None
                    p.grad /= world
            one.step()
    optimizer = KFAC(model, **options)
    split_work(optimizer)
    shares = [slice(r * BATCH // world, (r + 1) * BATCH // world) for r in range(world)]
    with counting() as traffic:
        train(DistributedDataParallel(model), optimizer, shares[rank], loss_average)
    held = ["input_covariance" in optimizer.state[layer.weight] for layer in optimizer._watch.layers]
    everyone = [torch.empty_like(flat(model)) for _ in range(world)]
    dist.all_gather(everyone, flat(model))
    gather_state(optimizer)
    state = max(
        float((optimizer.state[p][name] - value).abs().max() / value.abs().max().clamp(min=1e-300))
        for p, q in zip(model.parameters(), alone.parameters(), strict=True)
        for name, value in one.state[q].items()
        if "basis" not in name and value.numel()
    )
    worst = float((flat(model) - flat(alone)).abs().max())
    moved = float((flat(network()) - flat(alone)).abs().max())
    return worst, state, moved, all(torch.equal(flat(model), x) for x in everyone), held, traffic.by_label()


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize(
    ("loss_average", "other"),
    [("batch", {}), (None, {"statistics": "input"}), ("batch", {"statistics_frequency": 2})],
)
def test_replicas_take_the_steps_of_the_whole_batch(world, loss_average, other):
    found = run(world, follow, loss_average, other)
    for worst, state, moved, equal, _, traffic in found:
        assert moved > 1e-2
        assert worst < 1e-9
        assert state < 1e-8
        assert equal
        assert set(traffic) == {"covariances", "directions from owners"}
    for owners in zip(*(held for *_, held, _ in found), strict=True):
        assert sum(owners) == 1


def resume():
    """A gathered checkpoint goes on alone and on replicas; one that was not gathered is refused."""
    rank, half = dist.get_rank(), slice(dist.get_rank() * BATCH // 2, (dist.get_rank() + 1) * BATCH // 2)
    model, options = network(), settings("batch")
    optimizer = KFAC(model, **options)
    split_work(optimizer)
    wrapped = DistributedDataParallel(model)
    train(wrapped, optimizer, half, "batch", range(4))
    with pytest.raises(RuntimeError, match="on another rank, its owner"):
        optimizer.state_dict()
    gather_state(optimizer)
    saved, weights = (
        deepcopy(optimizer.state_dict()),
        {name: x.clone() for name, x in model.state_dict().items()},
    )
    train(wrapped, optimizer, half, "batch", range(4, 7))
    again = network()
    again.load_state_dict(weights)
    other = KFAC(again, **options)
    split_work(other)
    other.load_state_dict(saved)
    train(DistributedDataParallel(again), other, half, "batch", range(4, 7))
    alone = network()
    alone.load_state_dict(weights)
    single = KFAC(alone, **options)
    single.load_state_dict(saved)
    return rank, torch.equal(flat(model), flat(again)), sorted(single.state_dict()["state"])


def test_gathered_checkpoints_resume_bit_for_bit():
    for _, same, entries in run(2, resume):
        assert same
        assert len(entries) == 8


def unseen():
    model = network()
    optimizer = KFAC(model, lr=0.1)
    split_work(optimizer)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    before = flat(model)
    with pytest.raises(RuntimeError, match="no forward and backward pass"):
        optimizer.step()
    return torch.equal(before, flat(model))


def test_layers_seen_by_no_rank_are_told_by_all():
    assert all(run(2, unseen))


def refused():
    model = network()
    optimizer = KFAC(model, lr=0.1)
    train(model, optimizer, slice(None), "batch", range(0))
    model(*batch(0)).sum().backward()
    with pytest.raises(RuntimeError, match="split_work"):
        optimizer.step()


def refused_sharded():
    from torch.distributed.fsdp import fully_shard

    model = nn.Sequential(nn.Linear(4, 4))
    fully_shard(model)
    with pytest.raises(ValueError, match="whole weights"):
        KFAC(model, lr=0.1)


def test_what_is_refused():
    run(2, refused)
    run(2, refused_sharded)
