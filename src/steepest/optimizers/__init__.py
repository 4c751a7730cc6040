"""Named methods: each is a recipe on the engine, with a signature users know.

KFAC is in ``steepest.optimizers.kfac``, with the hooks that only it needs.
"""

from steepest.optimizers.adagrad import Adagrad
from steepest.optimizers.adam import Adam, AdamW
from steepest.optimizers.andi import ANDI
from steepest.optimizers.kl import KLSOAP, KLShampoo
from steepest.optimizers.madgrad import MADGRAD
from steepest.optimizers.muadam import MuAdam, MuAdamSANIA
from steepest.optimizers.muon import Muon
from steepest.optimizers.sania import AdamSANIA
from steepest.optimizers.scion import ClippedScion, Scion, scion_init_
from steepest.optimizers.shampoo import OneSidedShampoo, Shampoo
from steepest.optimizers.sign import NormalizedSGD, SignSGD
from steepest.optimizers.soap import SOAP
from steepest.optimizers.splus import SPlus
from steepest.optimizers.steepest import Steepest

__all__ = [
    "ANDI",
    "KLSOAP",
    "MADGRAD",
    "SOAP",
    "Adagrad",
    "Adam",
    "AdamSANIA",
    "AdamW",
    "ClippedScion",
    "KLShampoo",
    "MuAdam",
    "MuAdamSANIA",
    "Muon",
    "NormalizedSGD",
    "OneSidedShampoo",
    "SPlus",
    "Scion",
    "Shampoo",
    "SignSGD",
    "Steepest",
    "scion_init_",
]
