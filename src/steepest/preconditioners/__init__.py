"""Preconditioners: the coordinates in which a norm is taken."""

from steepest.preconditioners.base import Coordinates, Preconditioner
from steepest.preconditioners.diagonal import Diagonal
from steepest.preconditioners.eigenbasis import Eigenbasis
from steepest.preconditioners.equilibration import Equilibration
from steepest.preconditioners.grafted import Grafted
from steepest.preconditioners.identity import Identity
from steepest.preconditioners.inward import InwardOnly
from steepest.preconditioners.kl import KLEigenbasis
from steepest.preconditioners.kronecker import Kronecker
from steepest.preconditioners.rotated import Rotated
from steepest.preconditioners.scaled import ScaledDiagonal

__all__ = [
    "Coordinates",
    "Diagonal",
    "Eigenbasis",
    "Equilibration",
    "Grafted",
    "Identity",
    "InwardOnly",
    "KLEigenbasis",
    "Kronecker",
    "Preconditioner",
    "Rotated",
    "ScaledDiagonal",
]
