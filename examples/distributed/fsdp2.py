"""Train a transformer sharded by FSDP2 with Muon, with checkpoints that any number of processes can resume.

torchrun --nproc-per-node 2 examples/distributed/fsdp2.py --folder checkpoints
"""

import argparse
import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from transformer import Transformer, batch, groups, loss_of, text

import steepest

parser = argparse.ArgumentParser()
parser.add_argument("--folder", type=Path, required=True, help="where checkpoints go, and are looked for")
parser.add_argument("--steps", type=int, default=40)
parser.add_argument("--every", type=int, default=10, help="steps between two checkpoints")
parser.add_argument("--die-at", type=int, default=None, help="kill a process at this step, to try the resume")
options = parser.parse_args()

dist.init_process_group("gloo")
rank, ranks = dist.get_rank(), dist.get_world_size()
tokens, vocabulary = text()

torch.manual_seed(0)
model = Transformer(vocabulary)
for block in model.blocks:
    fully_shard(block)
fully_shard(model)

# The same call as on one process. Matrices are made whole on one owner each; the rest stays in shards.
optimizer = steepest.Muon(groups(model), lr=0.02, aux={"lr": 3e-3})


def state() -> dict:
    weights, moments = get_state_dict(model, optimizer)
    return {"model": weights, "optimizer": moments}


start = 0
complete = sorted(folder.parent for folder in options.folder.glob("step*/.metadata"))  # written last
if complete:
    loaded = state()
    dcp.load(loaded, checkpoint_id=complete[-1])
    set_state_dict(model, optimizer, model_state_dict=loaded["model"], optim_state_dict=loaded["optimizer"])
    start = int(complete[-1].name.removeprefix("step"))
    if rank == 0:
        print(f"resumed from {complete[-1].name} on {ranks} processes")

for step in range(start + 1, options.steps + 1):
    if step == options.die_at and rank == ranks - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    optimizer.zero_grad()
    loss = loss_of(model, *batch(tokens, step, rank, ranks))
    loss.backward()
    optimizer.step()
    if step % options.every == 0:
        dcp.save(state(), checkpoint_id=options.folder / f"step{step:06}")

with torch.no_grad():
    mean = loss_of(model, *batch(tokens, options.steps + 1, rank, ranks)) / ranks
dist.all_reduce(mean)
if rank == 0:
    print(f"after step {options.steps}: loss {mean.item():.6f}")
dist.destroy_process_group()
