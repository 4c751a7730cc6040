"""Invariance of optimizers to changes of coordinates, measured beside what theory predicts."""

from steepest.checks.invariances.command import main_invariance
from steepest.checks.invariances.measure import Invariance, invariance
from steepest.checks.invariances.predictions import PREDICTIONS
from steepest.checks.invariances.table import invariance_table

__all__ = ["PREDICTIONS", "Invariance", "invariance", "invariance_table", "main_invariance"]
