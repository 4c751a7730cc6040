"""Optimizers as steepest descent in a preconditioned norm."""

import importlib
import typing

from steepest import recipes
from steepest._version import __version__
from steepest.momentum import EMA, HeavyBall, Momentum, NoMomentum
from steepest.norms import ColNorm, Frobenius, Max, Norm, RowNorm, Spectral
from steepest.operator_norms import operator_norm
from steepest.optimizers import (
    ANDI,
    KLSOAP,
    MADGRAD,
    SOAP,
    Adagrad,
    Adam,
    AdamSANIA,
    AdamW,
    ClippedScion,
    KLShampoo,
    MuAdam,
    MuAdamSANIA,
    Muon,
    NormalizedSGD,
    OneSidedShampoo,
    Scion,
    Shampoo,
    SignSGD,
    SPlus,
    Steepest,
    scion_init_,
)
from steepest.preconditioners import (
    Diagonal,
    Eigenbasis,
    Equilibration,
    Grafted,
    Identity,
    KLEigenbasis,
    Kronecker,
    Preconditioner,
)
from steepest.rule import Rule
from steepest.steps import (
    Clipped,
    DualScaled,
    EnergyFloor,
    MeanSide,
    Polyak,
    Radius,
    RMSMatched,
    StepLength,
    UnitLMO,
)
from steepest.wrappers import cautious, hyperball

if typing.TYPE_CHECKING:
    from steepest.config import show_config
    from steepest.monitoring import Monitor
    from steepest.optimizers.kfac import KFAC
    from steepest.preconditioners.kfac import KFACPreconditioner
    from steepest.rates import lr_range_test, suggest_lr
    from steepest.routing import ParamGroups, param_groups

_LATER = {
    "KFAC": "steepest.optimizers.kfac",
    "KFACPreconditioner": "steepest.preconditioners.kfac",
    "Monitor": "steepest.monitoring",
    "ParamGroups": "steepest.routing",
    "lr_range_test": "steepest.rates",
    "param_groups": "steepest.routing",
    "show_config": "steepest.config",
    "suggest_lr": "steepest.rates",
}
"""Names that most processes never use, and where they are imported from when one does."""


if not typing.TYPE_CHECKING:  # or type checkers would take any misspelt name for one that comes later

    def __getattr__(name: str) -> typing.Any:
        """Import a name of ``_LATER`` when it is first asked for."""
        if name not in _LATER:
            from steepest.spelling import suggest

            hint = suggest(name, __all__, cutoff=0.6)
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")
        globals()[name] = value = getattr(importlib.import_module(_LATER[name]), name)
        return value


def __dir__() -> list[str]:
    """Return all names, those not yet imported too."""
    return sorted({*globals(), *_LATER})


__all__ = [
    "ANDI",
    "EMA",
    "KFAC",
    "KLSOAP",
    "MADGRAD",
    "SOAP",
    "Adagrad",
    "Adam",
    "AdamSANIA",
    "AdamW",
    "Clipped",
    "ClippedScion",
    "ColNorm",
    "Diagonal",
    "DualScaled",
    "Eigenbasis",
    "EnergyFloor",
    "Equilibration",
    "Frobenius",
    "Grafted",
    "HeavyBall",
    "Identity",
    "KFACPreconditioner",
    "KLEigenbasis",
    "KLShampoo",
    "Kronecker",
    "Max",
    "MeanSide",
    "Momentum",
    "Monitor",
    "MuAdam",
    "MuAdamSANIA",
    "Muon",
    "NoMomentum",
    "Norm",
    "NormalizedSGD",
    "OneSidedShampoo",
    "ParamGroups",
    "Polyak",
    "Preconditioner",
    "RMSMatched",
    "Radius",
    "RowNorm",
    "Rule",
    "SPlus",
    "Scion",
    "Shampoo",
    "SignSGD",
    "Spectral",
    "Steepest",
    "StepLength",
    "UnitLMO",
    "__version__",
    "cautious",
    "hyperball",
    "lr_range_test",
    "operator_norm",
    "param_groups",
    "recipes",
    "scion_init_",
    "show_config",
    "suggest_lr",
]
