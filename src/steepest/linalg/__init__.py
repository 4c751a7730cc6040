"""Matrix functions of optimizers, batched over leading dimensions and safe at any scale.

Polar factors, powers of symmetric matrices, eigenvector bases.
"""

from steepest.linalg.eigenbasis import Refreshed, eigenbasis, refresh_basis
from steepest.linalg.fallback import Robust
from steepest.linalg.polar_factor import POLAR_METHODS, check_polar, orthogonality_error, polar
from steepest.linalg.roots import inverse_root, symmetric_power
from steepest.linalg.symmetric import SymmetricEigen, symmetric_eigen

__all__ = [
    "POLAR_METHODS",
    "Refreshed",
    "Robust",
    "SymmetricEigen",
    "check_polar",
    "eigenbasis",
    "inverse_root",
    "orthogonality_error",
    "polar",
    "refresh_basis",
    "symmetric_eigen",
    "symmetric_power",
]
