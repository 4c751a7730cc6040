"""Train the same transformer under DistributedDataParallel, the matrix work split over the replicas.

torchrun --nproc-per-node 2 examples/distributed/ddp.py --folder checkpoints
"""

import argparse
import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from transformer import Transformer, batch, groups, loss_of, text

import steepest
from steepest.distributed import gather_state, split_work

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
replicated = DistributedDataParallel(model)
optimizer = steepest.Muon(groups(model), lr=0.02, aux={"lr": 3e-3})
split_work(optimizer)  # each matrix is orthogonalised by one replica, and the results are exchanged

start = 0
checkpoints = sorted(options.folder.glob("step*.pt"))
if checkpoints:
    saved = torch.load(checkpoints[-1], weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    start = saved["step"]
    if rank == 0:
        print(f"resumed from {checkpoints[-1].name} on {ranks} processes")

for step in range(start + 1, options.steps + 1):
    if step == options.die_at and rank == ranks - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    optimizer.zero_grad()
    loss = loss_of(replicated, *batch(tokens, step, rank, ranks))
    loss.backward()
    optimizer.step()
    if step % options.every == 0:
        gather_state(optimizer)  # every rank takes part, one writes
        if rank == 0:
            options.folder.mkdir(parents=True, exist_ok=True)
            path = options.folder / f"step{step:06}.pt"
            unfinished = path.with_suffix(".tmp")
            saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(saved, unfinished)
            unfinished.replace(path)

with torch.no_grad():
    mean = loss_of(model, *batch(tokens, options.steps + 1, rank, ranks)) / ranks
dist.all_reduce(mean)
if rank == 0:
    print(f"after step {options.steps}: loss {mean.item():.6f}")
dist.destroy_process_group()
