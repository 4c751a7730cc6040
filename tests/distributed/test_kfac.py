"""K-FAC on ranks that each see a share of the batch: the steps of one process that sees all of it."""

import warnings
from copy import deepcopy
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import steepest
from distributed.harness import run
from distributed.parity import difference
from distributed.test_local import LOCAL
from distributed.test_matrix_parity import FLAT
from steepest import KFAC, KFACPreconditioner
from steepest.distributed import configure, counting, gather_state, split_work
from steepest.optimizer import RuleOptimizer
from steepest.preconditioners.kfac import network as layers_of_a_network
from toys import CURVED, MAKERS

BATCH, STEPS = 24, 20
SETTINGS = {"lr": 0.05, "precondition_frequency": 3}


class Net(nn.Module):
    """Every kind of layer, uneven and empty shards, and parameters for the auxiliary rule."""

    def __init__(self, width):
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.conv = nn.Conv2d(1, 3, 3)
        self.mix = nn.Linear(10, 5)
        self.norm = nn.LayerNorm(5)
        self.head = nn.Linear(5, width, bias=False)
        self.last = nn.Linear(width, 1)

    def forward(self, index, image):
        x = torch.cat([self.embed(index), self.conv(image).mean((2,)).flatten(1)], 1)
        return 2 * self.last(torch.tanh(self.head(self.norm(torch.tanh(self.mix(x))))))


def network(kind="whole"):
    """The same on every rank; torch's tensor parallelism and shards of columns need even sides."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net(4 if kind in ("columns", "tensor", "both") else 3).double()


def batch(step):
    generator = torch.Generator().manual_seed(step)
    index = torch.randint(0, 6, (BATCH,), generator=generator)
    return index, torch.randn(BATCH, 1, 5, 4, generator=generator, dtype=torch.float64)


def losses(model, step, share):
    return (model(*(x[share] for x in batch(step))) - 1).square().sum(1)


def train(model, optimizer, share, steps, loss_average="batch", unsharded=False):
    for step in steps:
        optimizer.zero_grad()
        each = losses(model, step, share)
        (each.mean() if loss_average else each.sum()).backward()
        if unsharded:
            model.unshard()  # as some schedules leave it: modules then hold other tensors
        optimizer.step()
        if unsharded:
            model.reshard()


_known: dict[object, tuple[Net, KFAC]] = {}


def alone(kind, steps=STEPS, loss_average="batch", **options):
    """The network and its optimizer after the same steps on one process; the same on every rank."""
    model, world = network(kind), dist.get_world_size()
    key = model.last.in_features, steps, loss_average, world, repr(options)
    if key in _known:
        return _known[key]
    one = KFAC(model, **{**SETTINGS, "loss_average": loss_average, **options})
    with patch.object(layers_of_a_network, "require_one_process", lambda: None):
        for step in range(steps):
            one.zero_grad()
            each = losses(model, step, slice(None))
            # Ranks average the gradients of their sums.
            (each.mean() if loss_average else each.sum() / world).backward()
            for layer in one._watch.layers if not loss_average else ():
                assert layer.pending.outputs is not None
                layer.pending.outputs *= world**2
            one.step()
    return _known.setdefault(key, (model, one))


def distributed(kind):
    """A network on all ranks, what to call, and this rank's share of a batch."""
    model, world, rank = network(kind), dist.get_world_size(), dist.get_rank()
    shares, share, called = world, rank, model
    if kind == "replicas":
        called = DistributedDataParallel(model)
    elif kind == "hybrid":
        fully_shard(model, mesh=init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("copies", "shards")))
    elif kind in ("tensor", "both"):
        mesh = init_device_mesh(
            "cpu",
            (2 if kind == "both" else 1, world // (2 if kind == "both" else 1)),
            mesh_dim_names=("data", "tensor"),
        )
        plan = {
            "embed": ColwiseParallel(output_layouts=Replicate()),
            "mix": RowwiseParallel(input_layouts=Replicate()),
            "head": ColwiseParallel(),
            "last": RowwiseParallel(),
        }
        parallelize_module(model, mesh["tensor"], plan)
        shares, share = mesh["data"].size(), mesh.get_local_rank("data")
        if kind == "both":
            fully_shard(model, mesh=mesh["data"])
    else:
        mesh = init_device_mesh("cpu", (world,))
        columns = {id(model.embed.weight), id(model.last.weight)}
        place = (lambda p: Shard(1) if id(p) in columns else None) if kind == "columns" else None
        if kind == "layers":
            for layer in (model.conv, model.mix, model.head):
                fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh, shard_placement_fn=place)
    return model, called, slice(share * BATCH // shares, (share + 1) * BATCH // shares)


def whole(tensor):
    return tensor.full_tensor().detach() if isinstance(tensor, DTensor) else tensor.detach()


def optimizer_for(model, kind, **options):
    optimizer = KFAC(model, **{**SETTINGS, **options})
    if kind in ("replicas", "tensor"):
        split_work(optimizer)
    return optimizer


def compare(model, optimizer, single, one):
    """How far weights and state are from those of one process."""
    gather_state(optimizer)
    saved, expected = optimizer.state_dict()["state"], one.state_dict()["state"]
    state = max(
        difference([whole(saved[key][name])], [value])
        for key, own in expected.items()
        for name, value in own.items()
        if "basis" not in name and value.numel() and bool(value.any())
    )
    weights = [whole(p) for p in model.parameters()]
    assert sorted(saved) == sorted(expected)
    assert all(sorted(saved[key]) == sorted(own) for key, own in expected.items())
    return difference(weights, [p.detach() for p in single.parameters()]), state


def follow(kind, steps=STEPS, **options):
    """Differences from one process, how far it came, whether ranks agree, who owns, and what was sent."""
    single, one = alone(kind, steps, **options)
    model, called, share = distributed(kind)
    optimizer = optimizer_for(model, kind, **options)
    with counting() as traffic:
        train(called, optimizer, share, range(steps), options.get("loss_average", "batch"), kind == "whole")
    held = ["input_covariance" in optimizer.state[layer.weight] for layer in optimizer._watch.layers]
    found = compare(model, optimizer, single, one)
    flat = torch.cat([whole(p).reshape(-1) for p in model.parameters()])
    everyone = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, flat)
    start = [p.detach() for p in network(kind).parameters()]
    moved = difference(start, [p.detach() for p in single.parameters()])
    return *found, moved, all(torch.equal(flat, x) for x in everyone), held, traffic.by_label()


def follow_all(kinds, steps):
    return {kind: follow(kind, steps) for kind in kinds}


@pytest.mark.parametrize(
    ("world", "kinds", "steps"),
    [
        (2, ["replicas", "layers"], STEPS),
        (4, ["replicas", "whole"], STEPS),
        (2, ["columns", "tensor"], 7),
        (4, ["hybrid", "tensor", "both"], 7),
    ],
)
def test_steps_are_those_of_the_whole_batch(world, kinds, steps):
    ranks = run(world, follow_all, kinds, steps)
    for found in ranks:
        for kind, (weights, state, moved, equal, _, traffic) in found.items():
            assert moved > 1e-2, kind
            assert weights < 1e-8, kind
            assert state < 1e-8, kind
            assert equal, kind
            expected = {"agreement", "covariances", "directions from owners"}
            expected |= set() if kind == "replicas" else {"matrices to owners", "network"}
            assert set(traffic) == expected | ({"activations"} if kind in ("tensor", "both") else set()), kind
    for kind in set(kinds) - {"both"}:  # where layers that are not tensor-parallel have a group of ranks each
        for owners in zip(*(held for *_, held, _ in (found[kind] for found in ranks)), strict=True):
            assert sum(owners) == 1, kind


OPTIONS = [
    {"loss_average": None, "kl_clip": None, "damping": 0.1},
    {"statistics": "input", "nesterov": True, "weight_decay": 0.1},
    {"statistics_frequency": 2, "factored_damping": True, "lr": torch.tensor(0.05)},
    {"skip": ["mix"], "maximize": True, "momentum": 0.0},
]


def follow_options(kind):
    return [follow(kind, 7, **options)[:3] for options in OPTIONS]


@pytest.mark.parametrize("kind", ["layers", "replicas"])
def test_options(kind):
    for found in run(2, follow_options, kind):
        for (weights, state, moved), options in zip(found, OPTIONS, strict=True):
            assert moved > 1e-2, options
            assert weights < 1e-8, options
            assert state < 1e-8, options


def bytes_sent():
    """What each rank sends in a step of one layer, 3 x (4 + 1), in shards of rows."""
    model = nn.Sequential(nn.Linear(4, 3)).double()
    fully_shard(model, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = KFAC(model, lr=0.1, kl_clip=None)
    sent = {}
    for _ in range(2):
        model(torch.ones(2, 4, dtype=torch.float64)).square().mean().backward()
        with counting() as traffic:
            optimizer.step()
        sent = traffic.by_label()
    return sent


def test_what_a_step_sends():
    found = run(2, bytes_sent)
    statistics = 8 * (2 + 5 * 5 + 3 * 3)  # counts, and both covariances, from the rank that is not the owner
    assert sum(sent["covariances"] for sent in found) == statistics
    for label in ("matrices to owners", "directions from owners"):
        assert sum(sent[label] for sent in found) == 8 * 1 * 5  # the row that the owner does not hold


def resume():
    """A gathered checkpoint goes on alone and on replicas; one that was not gathered is refused."""
    rank, half = dist.get_rank(), slice(dist.get_rank() * BATCH // 2, (dist.get_rank() + 1) * BATCH // 2)
    model = network()
    optimizer = optimizer_for(model, "replicas")
    wrapped = DistributedDataParallel(model)
    train(wrapped, optimizer, half, range(4))
    with pytest.raises(RuntimeError, match="on every rank before state_dict"):
        optimizer.state_dict()
    gather_state(optimizer)
    saved = deepcopy(optimizer.state_dict())
    weights = {name: x.clone() for name, x in model.state_dict().items()}
    train(wrapped, optimizer, half, range(4, 7))
    again = network()
    again.load_state_dict(weights)
    other = optimizer_for(again, "replicas")
    other.load_state_dict(saved)
    train(DistributedDataParallel(again), other, half, range(4, 7))
    single = KFAC(network(), **SETTINGS)
    single.load_state_dict(saved)
    same = all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    return rank, same, sorted(single.state_dict()["state"])


def test_gathered_checkpoints_resume_bit_for_bit():
    for _, same, entries in run(2, resume):
        assert same
        assert len(entries) == 10


def sharded(folder=None):
    """A network in shards, and its optimizer; both as loaded from a checkpoint if there is a folder."""
    model, called, share = distributed("layers")
    optimizer = optimizer_for(model, "layers")
    if folder is not None:
        with torch.no_grad():
            for p in model.parameters():
                p.zero_()
        weights, state = get_state_dict(model, optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of torch's own file reader
            dcp.load({"model": weights, "optimizer": state}, checkpoint_id=folder)
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)
    return model, optimizer, called, share


def go_on(source, steps, target):
    """Load, train, save; return how far the weights are from those of one process."""
    model, optimizer, called, share = sharded(source)
    train(called, optimizer, share, steps)
    weights, state = get_state_dict(model, optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        dcp.save({"model": weights, "optimizer": state}, checkpoint_id=target)
    single, _ = alone("layers", steps.stop)
    return difference([whole(p) for p in model.parameters()], [p.detach() for p in single.parameters()])


def test_saved_on_four_ranks_and_continued_on_two_and_one(tmp_path):
    source = None
    for world, steps in ((4, range(4)), (2, range(4, 8)), (1, range(8, 12))):
        target = str(tmp_path / str(world))
        assert max(run(world, go_on, source, steps, target)) < 1e-6, world
        source = target


def filtered(kind):
    """K-FAC in front of SGD against KFAC, through a checkpoint on the way."""
    single, _ = alone("layers", 8)
    model, called, share = distributed(kind)
    replicas = dist.group.WORLD if kind == "replicas" else None
    made = {"kl_clip": 1e-3, "precondition_frequency": 3, "replicas": replicas}
    front = KFACPreconditioner(model, **made)
    layers = {id(p) for layer in front._watch.layers for p in layer.parameters}
    sgd = torch.optim.SGD([p for p in model.parameters() if id(p) in layers], lr=0.05, momentum=0.9)
    aux = torch.optim.AdamW([p for p in model.parameters() if id(p) not in layers], lr=1e-3, weight_decay=0.0)
    for step in range(8):
        if step == 4:
            saved = front.state_dict()
            front.remove_hooks()
            front = KFACPreconditioner(model, **made)
            front.load_state_dict(saved)
        model.zero_grad()
        losses(called, step, share).mean().backward()
        front.precondition(lr=0.05)
        sgd.step()
        aux.step()
    front.remove_hooks()
    return difference([whole(p) for p in model.parameters()], [p.detach() for p in single.parameters()])


@pytest.mark.parametrize("kind", ["layers", "replicas"])
def test_in_front_of_another_optimizer(kind):
    assert max(run(2, filtered, kind)) < 1e-8


def refused():
    """What every rank is told, and whether anything changed."""
    told, mesh = [], init_device_mesh("cpu", (2,))
    for shard in (False, True):
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        if shard:
            fully_shard(model, mesh=mesh)
        optimizer = optimizer_for(model, "layers" if shard else "replicas")
        before = deepcopy([whole(p) for p in model.parameters()])
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        with pytest.raises(RuntimeError, match="no forward and backward pass") as unseen:
            optimizer.step()
        if dist.get_rank() == 1:
            next(model.parameters()).grad = None
        with pytest.raises(RuntimeError, match="has a gradient on 1 of 2 ranks") as uneven:
            optimizer.step()
        told += [str(unseen.value), str(uneven.value)]
        assert all(torch.equal(whole(p), x) for p, x in zip(model.parameters(), before, strict=True))
        with pytest.raises(ValueError, match="blocks must be False for KFAC"):
            configure(optimizer, blocks=True)
    return told


def refused_alone():
    model, mesh = nn.Sequential(nn.Linear(4, 4)), init_device_mesh("cpu", (2,))
    optimizer = KFAC(model, lr=0.1)
    model(torch.ones(2, 4)).sum().backward()
    with pytest.raises(RuntimeError, match="split_work"):
        optimizer.step()
    front = KFACPreconditioner(model)
    model(torch.ones(2, 4)).sum().backward()
    with pytest.raises(RuntimeError, match="give KFACPreconditioner replicas=group"):
        front.precondition()
    fully_shard(apart := nn.Linear(4, 4), mesh=mesh, ignored_params={apart.bias})
    with pytest.raises(ValueError, match="must be DTensors of one mesh, or both plain tensors"):
        KFAC(nn.Sequential(apart), lr=0.1)


def test_what_is_refused():
    told = run(2, refused)
    assert told[0] == told[1]
    run(2, refused_alone)


def test_no_public_optimizer_is_left_out():
    names = {*LOCAL, *FLAT, *CURVED}
    assert names == set(MAKERS)
    public = {getattr(steepest, name) for name in steepest.__all__}
    rules = {cls for cls in public if isinstance(cls, type) and issubclass(cls, RuleOptimizer)}
    assert rules - {MAKERS[name].func for name in names} <= {KFAC}
