"""Sharded and replicated training: the same step as on one process."""

from steepest.distributed.checkpoint import gather_state
from steepest.distributed.choices import configure
from steepest.distributed.collectives import Traffic, counting
from steepest.distributed.replicas import split_work

__all__ = ["Traffic", "configure", "counting", "gather_state", "split_work"]
