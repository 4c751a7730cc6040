"""Sharded and replicated training: the same step as on one process."""

from steepest.distributed.collectives import Traffic, counting

__all__ = ["Traffic", "counting"]
