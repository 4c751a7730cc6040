"""Matrix work split over replicas, for plain parameters under DistributedDataParallel."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed import ProcessGroup

from steepest.distributed.choices import configure
from steepest.distributed.settings import settings_of
from steepest.optimizer import RuleOptimizer


def split_work(
    optimizer: RuleOptimizer, group: ProcessGroup | None = None, *, traffic: torch.dtype | None = None
) -> None:
    """Let each replica compute the steps of a share of the matrices and send them to the others.

    Under DistributedDataParallel every rank has the same parameters and gradients, and without this every
    rank computes every step. With it, each matrix that needs more than a pass over its entries (Muon,
    Shampoo, SOAP and their kin) has one owner, chosen so that all have about as much to do; weights stay
    bitwise equal on all ranks. All other parameters are moved by every rank for itself.

    Traffic of a step is one entry per parameter entry and rank: worth it where the matrix work takes longer
    than that takes to send. What the owner of a matrix keeps of factors and bases no other rank does, which
    divides their memory by the number of ranks; call :func:`gather_state` on every rank before
    ``optimizer.state_dict()``. Loading needs nothing: every rank loads the whole.

    Call it on every rank, in the same order among other collectives, before the first step or after loading.

    Args:
        optimizer: an optimizer of this library whose parameters are plain tensors.
        group: the replicas. Default: all processes.
        traffic: dtype in which steps travel, such as ``torch.bfloat16``. Default None: the arithmetic's.

    Raises:
        TypeError, ValueError: as :func:`configure`.
        RuntimeError: without an initialised process group.

    Example:
        >>> import steepest, torch
        >>> from steepest.distributed import split_work
        >>> def worker(model: torch.nn.parallel.DistributedDataParallel):
        ...     optimizer = steepest.Muon(model.parameters(), lr=0.02)
        ...     split_work(optimizer)
        ...     return optimizer
    """
    if not dist.is_initialized():
        raise RuntimeError(
            "split_work needs a process group: call torch.distributed.init_process_group first"
        )
    blocks = isinstance(optimizer, RuleOptimizer) and settings_of(optimizer).blocks
    configure(optimizer, blocks=blocks, traffic=traffic, replicas=group or dist.group.WORLD)
