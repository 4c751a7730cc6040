"""Compositions that people use, each one line on the four axes.

They are rules, to be trained with :class:`steepest.Steepest`; its parts and numbers can still be replaced:

>>> import torch, steepest
>>> from steepest import recipes
>>> layer = torch.nn.Linear(32, 32, bias=False)
>>> optimizer = steepest.Steepest(layer.parameters(), 0.02, recipe=recipes.MUON_SQUARED)
>>> other = steepest.Steepest(
...     layer.parameters(), 0.02, recipe=recipes.MUON_SQUARED, momentum=steepest.EMA(0.9)
... )
>>> other.param_groups[0]["momentum"]
0.9
"""

from __future__ import annotations

from typing import Any

from steepest.momentum import EMA
from steepest.norms import Spectral
from steepest.preconditioners import Diagonal, Eigenbasis, Equilibration, InwardOnly, Kronecker
from steepest.rule import Rule
from steepest.steps import UnitLMO

_NESTEROV = EMA(0.95, nesterov=True)
_MUON: dict[str, Any] = {"norm": Spectral(), "momentum": _NESTEROV, "step": UnitLMO("original")}

MUON_SQUARED = Rule(preconditioner=InwardOnly(Diagonal(power=1, beta=0.95)), **_MUON)
"""Muon of the momentum divided by the root of V: MuAdamSANIA without the outer 1/D, so that lr is Muon's."""

SOAP_SPECTRAL = Rule(preconditioner=Eigenbasis(Diagonal(0.5, 0.95), beta=None), **_MUON)
"""SOAP's basis and second moments with the spectral oracle inside; a rotation alone would not change Muon."""

SHAMPOO_SPECTRAL = Rule(preconditioner=Kronecker(beta=0.95, frequency=10), **_MUON)
"""The spectral norm in Shampoo's coordinates: S = A^-1/8 msign(A^-1/8 M B^-1/8) B^-1/8."""

ANDI_SPECTRAL = Rule(preconditioner=Equilibration(), **_MUON)
"""The spectral norm in ANDI's coordinates, D^2 = r_i + c_j of the current gradient."""

ROW_EQUILIBRATED_MUON = Rule(preconditioner=InwardOnly(Equilibration(axis="rows")), **_MUON)
"""Muon of the momentum with its rows divided by the roots of the gradient's row lengths."""

COLUMN_EQUILIBRATED_MUON = Rule(preconditioner=InwardOnly(Equilibration(axis="columns")), **_MUON)
"""Muon of the momentum with its columns divided by the roots of the gradient's column lengths."""

ALL = {name: value for name, value in globals().items() if isinstance(value, Rule)}
"""Every composition by name."""
