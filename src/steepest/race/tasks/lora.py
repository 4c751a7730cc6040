"""Low-rank adapters by peft: the pretrained weights stay, every linear layer gets B A beside its own."""

from __future__ import annotations

import warnings

from torch import nn

from steepest.race.records import RaceError
from steepest.race.tasks.pretrained import library

ALPHA = 32
DROPOUT = 0.05


def add_lora(model: nn.Module, rank: int, *, alpha: float = ALPHA, dropout: float = DROPOUT) -> nn.Module:
    """Return a transformer of which only new low-rank factors are trained, in float32.

    Every linear layer but the output head computes W x + (alpha / rank) B A x, with A (rank, in) random and
    B (out, rank) zero. The factors are thin: give ANDI a ``threshold`` below the rank there.

    Args:
        model: a model of transformers.
        rank: of the factors, >= 1.
        alpha: scale of the adapters. Default 32.
        dropout: on the adapters' inputs. Default 0.05.

    Raises:
        RaceError: peft is not installed.
    """
    peft = library("peft")
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="all-linear")
    with warnings.catch_warnings():
        # peft asks transformers for a property by a name that its newest release renames.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        return peft.get_peft_model(model, config, autocast_adapter_dtype=True)


def check_rank(rank: object) -> int:
    """Return a rank, 0 for none.

    Raises:
        RaceError: it is not a whole number from 0 to 1024.
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or not 0 <= rank <= 1024:
        raise RaceError(f"lora_rank must be a whole number from 0 (all weights) to 1024, got {rank!r}")
    return rank
