"""Checkpoints of torch.distributed.checkpoint: on other numbers of ranks, damaged, and of something else."""

import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor

from distributed.harness import run
from distributed.parity import whole_of
from toys import MAKERS

EXACT = ("AdamW", "ANDI", "SignSGD", "MADGRAD")
CLOSE = ("Muon", "MuAdam", "SOAP", "Shampoo", "KLShampoo", "SPlus", "ClippedScion")
HALF = 3


def _net(width: int = 8) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, width), nn.Linear(width, 5), nn.Linear(5, 1)).double()


def _sharded(name: str, width: int = 8) -> tuple[nn.Module, torch.optim.Optimizer]:
    net = _net(width)
    fully_shard(net, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    return net, MAKERS[name](net.parameters())


def _steps(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Step with gradients that do not depend on how many ranks there are."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for param in net.parameters():
            whole = torch.randn(param.shape, generator=generator, dtype=torch.float64)
            sharded = hasattr(param, "placements")
            param.grad = distribute_tensor(whole, param.device_mesh, param.placements) if sharded else whole  # pyright: ignore
        optimizer.step()


def _state(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    weights, moments = get_state_dict(net, optimizer)
    return {"model": weights, "optimizer": moments}


def _save(folder: str, names: tuple[str, ...]) -> None:
    for name in names:
        net, optimizer = _sharded(name)
        _steps(net, optimizer, range(HALF))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of torch's own file writer
            dcp.save(_state(net, optimizer), checkpoint_id=f"{folder}/{name}")


def _load(folder: str, name: str, width: int = 8) -> tuple[nn.Module, torch.optim.Optimizer]:
    net, optimizer = _sharded(name, width)
    with torch.no_grad():
        for param in net.parameters():
            param.zero_()
    state = _state(net, optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        dcp.load(state, checkpoint_id=folder)
    set_state_dict(net, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    return net, optimizer


def _resume(folder: str, names: tuple[str, ...]) -> dict[str, list]:
    found = {}
    for name in names:
        net, optimizer = _load(f"{folder}/{name}", name)
        _steps(net, optimizer, range(HALF, 2 * HALF))
        found[name] = [whole_of(p).numpy().copy() for p in net.parameters()]
    return found


def _refused(folder: str, name: str, width: int) -> str:
    try:
        _load(folder, name, width)
    except (Exception, CheckpointException) as error:  # the latter is no Exception
        return f"{type(error).__name__}: {error}"
    return ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    run(4, _save, str(folder), EXACT + CLOSE)
    return folder


@pytest.mark.parametrize("world", [2, 1])
def test_saved_on_four_ranks_and_continued_on_fewer(folder, world):
    expected = {}
    for name in EXACT + CLOSE:
        net = _net()
        optimizer = MAKERS[name](net.parameters())
        _steps(net, optimizer, range(2 * HALF))
        expected[name] = [p.detach() for p in net.parameters()]
    for found in run(world, _resume, str(folder), EXACT + CLOSE):
        for name, weights in found.items():
            for weight, single in zip(weights, expected[name], strict=True):
                difference = (torch.from_numpy(weight) - single).abs().max().item()
                # On one process ANDI's sums are of whole rows; everything else elementwise is bitwise.
                limit = 1e-13 if name == "ANDI" else 0.0 if name in EXACT else 1e-6
                assert difference <= limit, name


@pytest.mark.parametrize(
    ("name", "width", "said"),
    [
        ("ANDI", 8, "momentum_buffer"),  # of another optimizer: AdamW has none
        ("AdamW", 9, "ize mismatch"),  # of other shapes
    ],
)
def test_a_checkpoint_of_something_else_is_refused(folder, name, width, said):
    for message in run(2, _refused, f"{folder}/AdamW", name, width):
        assert said in message
        if width != 8:
            assert "0.weight" in message


def test_a_checkpoint_cut_short_is_refused_by_name(folder, tmp_path):
    import shutil

    whole = folder / "Muon"
    unfinished, truncated = tmp_path / "unfinished", tmp_path / "truncated"
    shutil.copytree(whole, unfinished, ignore=shutil.ignore_patterns(".metadata"))
    shutil.copytree(whole, truncated)
    largest = max(truncated.glob("*.distcp"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    for message in run(2, _refused, str(unfinished), "Muon", 8):
        assert ".metadata" in message or str(unfinished) in message
    messages = run(2, _refused, str(truncated), "Muon", 8)
    assert all(messages)
    assert Path(truncated).exists()
