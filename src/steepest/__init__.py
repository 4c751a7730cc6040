"""Optimizers as steepest descent in a preconditioned norm."""

from steepest._version import __version__

__all__ = ["__version__"]
