"""Matrix functions of optimizers: polar factors. Batched over leading dimensions, safe at any scale."""

from steepest.linalg.polar_factor import POLAR_METHODS, check_polar, orthogonality_error, polar

__all__ = ["POLAR_METHODS", "check_polar", "orthogonality_error", "polar"]
