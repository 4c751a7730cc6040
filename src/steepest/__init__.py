"""Optimizers as steepest descent in a preconditioned norm."""

from steepest._version import __version__
from steepest.momentum import EMA, HeavyBall, Momentum, NoMomentum
from steepest.norms import ColNorm, Frobenius, Max, Norm, RowNorm, Spectral
from steepest.optimizers import (
    ANDI,
    Adam,
    AdamSANIA,
    AdamW,
    MuAdam,
    MuAdamSANIA,
    Muon,
    NormalizedSGD,
    SignSGD,
    Steepest,
)
from steepest.preconditioners import Diagonal, Equilibration, Identity, Preconditioner
from steepest.rule import Rule
from steepest.steps import DualScaled, EnergyFloor, RMSMatched, StepLength, UnitLMO

__all__ = [
    "ANDI",
    "EMA",
    "Adam",
    "AdamSANIA",
    "AdamW",
    "ColNorm",
    "Diagonal",
    "DualScaled",
    "EnergyFloor",
    "Equilibration",
    "Frobenius",
    "HeavyBall",
    "Identity",
    "Max",
    "Momentum",
    "MuAdam",
    "MuAdamSANIA",
    "Muon",
    "NoMomentum",
    "Norm",
    "NormalizedSGD",
    "Preconditioner",
    "RMSMatched",
    "RowNorm",
    "Rule",
    "SignSGD",
    "Spectral",
    "Steepest",
    "StepLength",
    "UnitLMO",
    "__version__",
]
