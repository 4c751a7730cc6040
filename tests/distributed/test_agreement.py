"""What ranks decide together before a step."""

import math
import time

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard
from torch.nn import Parameter

import steepest
from distributed.harness import run
from distributed.parity import sharded
from steepest.distributed import counting
from steepest.distributed.layout import local
from toys import copies, equal, give_gradients, parameters

SHAPES = [(6, 5), (7, 3), (4,)]


ROWS = (Shard(0),)


def _model(make, mesh_shape=(4,), placements=ROWS, dtype=torch.float64, **options):
    mesh = init_device_mesh("cpu", mesh_shape)
    parts = [Parameter(sharded(p.detach(), mesh, placements)) for p in parameters(SHAPES, dtype)]
    names = [f"layer{i}" for i in range(len(parts))]
    optimizer = make(list(zip(names, parts, strict=True)), **options)
    give = parameters(SHAPES, dtype)
    give_gradients(give, 1)
    for part, whole in zip(parts, give, strict=True):
        assert whole.grad is not None
        part.grad = sharded(whole.grad, mesh, placements)
    return parts, optimizer


def _local(parts):
    return copies([p.detach().to_local() for p in parts])


def _states(optimizer):
    return copies([local(value) for own in optimizer.state.values() for value in own.values()])


def _outcome(optimizer, parts):
    """Step; return the error, and whether any weight here changed."""
    before = _local(parts)
    begin = time.monotonic()
    try:
        optimizer.step()
    except (RuntimeError, FloatingPointError) as error:
        message = f"{type(error).__name__}: {error}"
    else:
        message = ""
    assert time.monotonic() - begin < 20
    moved = not equal([p for p in before if p.numel()], [p for p in _local(parts) if p.numel()])
    return message, moved


def _missing(make_name, rank, mesh_shape, placements):
    parts, optimizer = _model(
        getattr(steepest, make_name), mesh_shape, placements, lr=0.1, nonfinite="propagate"
    )
    if dist.get_rank() == rank:
        parts[1].grad = None
    return _outcome(optimizer, parts)


@pytest.mark.parametrize("placement", [((4,), (Shard(0),)), ((2, 2), (Replicate(), Shard(0)))], ids=str)
def test_a_gradient_missing_on_one_rank_is_an_error_on_all(placement) -> None:
    for message, moved in run(4, _missing, "NormalizedSGD", 2, *placement):
        assert "'layer1' of shape (7, 3) has a gradient on 3 of 4 ranks" in message
        assert not moved


def _missing_everywhere():
    parts, optimizer = _model(steepest.NormalizedSGD, lr=0.1)
    parts[1].grad = None
    before = _local(parts)
    optimizer.step()
    after = _local(parts)
    return [bool(torch.equal(a, b)) for a, b in zip(before, after, strict=True)]


def test_a_gradient_missing_everywhere_leaves_the_parameter_alone() -> None:
    for rank, unmoved in enumerate(run(4, _missing_everywhere)):
        assert unmoved[1]
        assert rank == 3 or not unmoved[0]  # the last rank holds no row of the first


def _not_finite(policy, rank, name):
    parts, optimizer = _model(steepest.AdamW, lr=0.1, nonfinite=policy)
    optimizer.step()
    if dist.get_rank() == rank:
        parts[name].grad.to_local().view(-1)[0] = math.nan
    states = _states(optimizer)
    message, moved = _outcome(optimizer, parts)
    return message, moved, equal(states, _states(optimizer))


def test_a_gradient_not_finite_on_one_rank_is_an_error_on_all() -> None:
    for message, moved, kept in run(4, _not_finite, "raise", 1, 1):
        assert message.startswith("FloatingPointError: the gradient of parameter 'layer1' of shape (7, 3)")
        assert not moved
        assert kept


def test_a_gradient_not_finite_on_one_rank_lets_all_skip() -> None:
    for message, moved, kept in run(4, _not_finite, "skip", 0, 0):
        assert not message
        assert not moved
        assert kept


def _plain_beside():
    """A plain parameter among DTensors, not finite on one rank."""
    parts, _ = _model(steepest.AdamW)
    plain = Parameter(torch.ones(3, dtype=torch.float64))
    plain.grad = torch.full((3,), math.inf if dist.get_rank() == 3 else 1.0, dtype=torch.float64)
    optimizer = steepest.AdamW([*parts, plain], lr=0.1)
    return _outcome(optimizer, parts)


def test_plain_parameters_beside_sharded_ones_take_part() -> None:
    for message, moved in run(4, _plain_beside):
        assert message.startswith("FloatingPointError: the gradient of")
        assert not moved


def _two_meshes():
    """One parameter on all ranks, one on each half of them; a gradient of one half is not finite."""
    rank = dist.get_rank()
    grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("half", "within"))
    everyone = init_device_mesh("cpu", (4,))
    wide = Parameter(sharded(torch.ones(8, 3), everyone, (Shard(0),)))
    narrow = Parameter(sharded(torch.ones(4, 3), grid["within"], (Shard(0),)))
    wide.grad = sharded(torch.ones(8, 3), everyone, (Shard(0),))
    narrow.grad = sharded(torch.ones(4, 3), grid["within"], (Shard(0),))
    if rank == 1:
        narrow.grad.to_local().fill_(math.nan)
    optimizer = steepest.NormalizedSGD([narrow, wide], lr=0.1)
    return _outcome(optimizer, [wide, narrow])


def test_a_verdict_reaches_ranks_of_other_meshes() -> None:
    (own, _), *_, (other, _) = answers = run(4, _two_meshes)
    assert own.startswith("FloatingPointError: the gradient of parameter 0 of shape (4, 3) is not finite")
    assert other.startswith("FloatingPointError: the gradient of a parameter of another rank is not finite")
    assert not any(moved for _, moved in answers)


def _on_half_of_them(rank):
    """One parameter on all ranks, then one on the first two alone; a gradient of ``rank`` is not finite."""
    everyone = init_device_mesh("cpu", (4,))
    half = init_device_mesh("cpu", (2, 2), mesh_dim_names=("half", "within"))["within"]
    params = [Parameter(sharded(torch.ones(8, 3), everyone, (Shard(0),)))]
    params += [Parameter(sharded(torch.ones(4, 3), half, (Shard(0),)))] if dist.get_rank() < 2 else []
    for p in params:
        p.grad = torch.full_like(p, math.nan if dist.get_rank() == rank and p is params[-1] else 1.0)
    return _outcome(steepest.NormalizedSGD(params, lr=0.1), params)


@pytest.mark.parametrize("rank", [0, 3, None])
def test_ranks_that_have_no_part_of_a_mesh_are_not_out_of_step(rank) -> None:
    for message, moved in run(4, _on_half_of_them, rank):
        assert moved == (rank is None)
        assert message.startswith("" if rank is None else "FloatingPointError: the gradient of")


def _one_rank(make_name):
    mesh = init_device_mesh("cpu", (1,))
    param = Parameter(sharded(torch.ones(4, 3), mesh, (Shard(0),)))
    param.grad = torch.full_like(param, math.nan)
    return _outcome(getattr(steepest, make_name)([param]), [param])


@pytest.mark.parametrize("make_name", ["AdamW", "Muon"])
def test_a_rank_alone_looks_at_its_gradients(make_name) -> None:
    [(message, moved)] = run(1, _one_rank, make_name)
    assert message.startswith("FloatingPointError: the gradient of parameter 0 of shape (4, 3) is not finite")
    assert not moved


def _quiet():
    _, optimizer = _model(steepest.AdamW, lr=0.1, nonfinite="propagate")
    with counting() as traffic:
        optimizer.step()
    return traffic.calls


def test_elementwise_rules_need_no_collective() -> None:
    assert run(4, _quiet) == [0] * 4


def _bytes(shapes, threshold):
    mesh = init_device_mesh("cpu", (4,))
    parts = [Parameter(sharded(torch.ones(shape), mesh, (Shard(0),))) for shape in shapes]
    for part, shape in zip(parts, shapes, strict=True):
        part.grad = sharded(torch.ones(shape), mesh, (Shard(0),))
    optimizer = steepest.ANDI(parts, lr=0.1, threshold=threshold)
    with counting() as traffic:
        optimizer.step()
    return traffic.by_label(), [record.label for record in traffic.records]


def test_equilibration_sends_column_sums_and_scalars_in_two_collectives() -> None:
    shapes = [(40, 30), (24, 50), (64, 20), (9,)]
    for sent, labels in run(4, _bytes, shapes, 16):
        assert labels == ["agreement", "norms", "norms"]
        # Float64 column sums of the three matrices, |G|^2 and |H|^2 of the vector and of each matrix.
        assert sent["norms"] == 2 * 3 / 4 * 8 * ((30 + 50 + 20) + 2 * 4)
        assert sent["agreement"] == 2 * 3 / 4 * 4 * (2 * 4 + 4)
