"""Matrix functions of optimizers, batched over leading dimensions and safe at any scale.

Polar factors, powers of symmetric matrices, eigenvector bases.
"""

from steepest.linalg.eigenbasis import Refreshed, eigenbasis, refresh_basis
from steepest.linalg.fallback import Robust
from steepest.linalg.plan import POLAR_METHODS, PolarPlan, check_polar, polar_plan
from steepest.linalg.polar_factor import orthogonality_error, polar
from steepest.linalg.roots import inverse_root, symmetric_power
from steepest.linalg.symmetric import SymmetricEigen, symmetric_eigen

__all__ = [
    "POLAR_METHODS",
    "PolarPlan",
    "Refreshed",
    "Robust",
    "SymmetricEigen",
    "check_polar",
    "eigenbasis",
    "inverse_root",
    "orthogonality_error",
    "polar",
    "polar_plan",
    "refresh_basis",
    "symmetric_eigen",
    "symmetric_power",
]
