"""Named methods: each is a recipe on the engine, with a signature users know."""

from steepest.optimizers.adam import Adam, AdamW
from steepest.optimizers.andi import ANDI
from steepest.optimizers.muadam import MuAdam, MuAdamSANIA
from steepest.optimizers.muon import Muon
from steepest.optimizers.sania import AdamSANIA
from steepest.optimizers.sign import NormalizedSGD, SignSGD
from steepest.optimizers.steepest import Steepest

__all__ = [
    "ANDI",
    "Adam",
    "AdamSANIA",
    "AdamW",
    "MuAdam",
    "MuAdamSANIA",
    "Muon",
    "NormalizedSGD",
    "SignSGD",
    "Steepest",
]
