"""The choices an optimizer has on several processes."""

from __future__ import annotations

import torch
from torch.distributed import ProcessGroup

from steepest.distributed.checkpoint import KeepsLayers, require_whole
from steepest.distributed.settings import DEFAULT, TRAFFIC, Settings, settings_of
from steepest.distributed.state import begin
from steepest.optimizer import RuleOptimizer


def configure(
    optimizer: RuleOptimizer,
    *,
    blocks: bool = False,
    traffic: torch.dtype | None = None,
    replicas: ProcessGroup | None = None,
) -> None:
    """Set how an optimizer works on several processes; every rank must make the same choices.

    Without it, DTensors (``fully_shard``, tensor parallelism) get the step of one process, and plain
    parameters (DistributedDataParallel) are moved by every rank for itself. Call it right after construction.

    Args:
        optimizer: an optimizer of this library.
        blocks: treat each rank's block of a sharded matrix as a matrix of its own. No traffic at all, but
            another method: the result depends on how many ranks there are, thin blocks of rows lose what
            their columns had in common, and rules that depend on shapes see the block's. State of another
            shape than the block's (factors, bases) stays on its rank, out of reach of
            ``torch.distributed.checkpoint``. State begins anew when this changes. Default False.
        traffic: dtype in which matrices travel to their owners and back, such as ``torch.bfloat16`` for half
            the bytes of float32 and a relative error of 2^-9 per entry. In ``torch.float16`` what is beyond
            65504 becomes infinite and what is below 3e-8 zero. Default None: that of the arithmetic.
        replicas: split matrix work on plain parameters over this group of replicas, whose gradients must be
            equal, as those of DistributedDataParallel are; see :func:`split_work`. Default None: no split,
            also if there was one.

    Raises:
        TypeError, ValueError: for another optimizer or another kind of argument.
        RuntimeError: if other replicas are chosen while owners among the present ones keep state.

    Example:
        >>> import torch, steepest
        >>> from steepest.distributed import configure
        >>> optimizer = steepest.Muon(torch.nn.Linear(8, 4).parameters())
        >>> configure(optimizer, traffic=torch.bfloat16)
    """
    if not isinstance(optimizer, RuleOptimizer):
        raise TypeError(f"optimizer must be one of steepest, got {type(optimizer).__name__}")
    if not isinstance(blocks, bool):
        raise TypeError(f"blocks must be True or False, got {blocks!r}")
    if traffic not in TRAFFIC:
        allowed = ", ".join(map(str, TRAFFIC))
        raise ValueError(f"traffic must be one of {allowed}, got {traffic!r}")
    if replicas is not None and not isinstance(replicas, ProcessGroup):
        raise TypeError(f"replicas must be a process group or None, got {replicas!r}")
    if blocks and isinstance(optimizer, KeepsLayers):
        raise ValueError(
            f"blocks must be False for {type(optimizer).__name__}, got True: a block of a weight has no "
            "covariance of its own inputs and outputs"
        )
    before = settings_of(optimizer)
    if replicas != before.replicas:
        require_whole(optimizer, "configure() takes the replicas of split_work() back")
    settings = Settings(blocks, traffic, replicas)
    optimizer._sharding = None if settings == DEFAULT else settings
    if settings.blocks != before.blocks:
        for group in optimizer.param_groups:
            begin(optimizer, group, anew=True)
