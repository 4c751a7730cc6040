"""The auxiliary rule of hybrids: AdamW for whatever a matrix rule does not take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steepest.hypers import validate
from steepest.momentum import EMA
from steepest.preconditioners import Diagonal
from steepest.rule import Rule
from steepest.spelling import refuse_unknown
from steepest.steps import DualScaled

ADAMW = Rule(preconditioner=Diagonal(0.5), momentum=EMA(bias_correction=True), step=DualScaled())
"""AdamW: Frobenius norm in the coordinates D^2 = sqrt(V) + eps, EMA momentum, dual-scaled."""

DEFAULTS: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
"""Hyperparameters of the auxiliary AdamW unless ``aux=dict(...)`` says otherwise; torch's, without decay."""


def aux_options(aux: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the complete hyperparameters of the auxiliary rule, or raise for names and values it has not."""
    if aux is not None and not isinstance(aux, Mapping):
        raise TypeError(f"aux must be a dict of {', '.join(DEFAULTS)} or None, got {aux!r}")
    options = {**DEFAULTS, **(aux or {})}
    refuse_unknown("aux", options, DEFAULTS)
    validate(options)
    return options
