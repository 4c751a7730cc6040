"""One process of a `torchrun` job: trains with the others and leaves a record in the job's folder.

The first process writes the record of the run; another writes one only if it fails.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist

from steepest.race.parallel import Replicas
from steepest.race.spec import RunSpec
from steepest.race.torchrun import RECORD, SPEC
from steepest.race.training import train


def main(folder: Path) -> None:
    """Do the run of a folder, with the process group that `torchrun` describes."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    spec = RunSpec.from_dict(json.loads((folder / SPEC).read_text()))
    device = torch.device(spec.engine.device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    torch.set_num_threads(spec.engine.threads)
    if device.type == "cuda":
        dist.init_process_group("nccl", device_id=device)
    else:
        dist.init_process_group("gloo")
    rank = dist.get_rank()
    record = train(spec, Replicas(spec.seed, device))
    if rank == 0 or record.status == "failed":
        unfinished = folder / f"{rank}.json"
        unfinished.write_text(record.to_json())
        unfinished.replace(folder / RECORD.format(time=time.time_ns(), rank=rank))
    if record.status == "failed":
        os._exit(1)  # the others wait for this process: torchrun ends them
    dist.barrier()
    dist.destroy_process_group()


def _end_with_the_parent() -> None:
    """Wait for the end of the lifeline that `torchrun` handed on: who asked for the run is gone."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
