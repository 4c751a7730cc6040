"""Preconditioners: the coordinates in which a norm is taken."""

from steepest.preconditioners.base import Coordinates, Preconditioner
from steepest.preconditioners.diagonal import Diagonal
from steepest.preconditioners.equilibration import Equilibration
from steepest.preconditioners.identity import Identity

__all__ = ["Coordinates", "Diagonal", "Equilibration", "Identity", "Preconditioner"]
