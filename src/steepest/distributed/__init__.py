"""Sharded and replicated training: the same step as on one process."""

from steepest.distributed.collectives import Traffic, counting
from steepest.distributed.choices import configure

__all__ = ["Traffic", "configure", "counting"]
