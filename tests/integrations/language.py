"""A small GPT-2 and a text for it, trained by the trainers under test and by plain loops."""

from typing import Any

import torch
import transformers
from torch import Tensor

TEXT = (
    "The quality of mercy is not strained; it droppeth as the gentle rain from heaven "
    "upon the place beneath. It is twice blest: it blesseth him that gives and him that takes. "
) * 4
LENGTH, BATCH = 16, 8


def gpt2(dropout: float = 0.0) -> transformers.GPT2LMHeadModel:
    """The same weights at every call; tied embeddings, biases, norms, matrices stored as ``Conv1D``."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=128,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=LENGTH,
        bos_token_id=1,
        eos_token_id=2,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
    )
    model = transformers.GPT2LMHeadModel(config)
    model.loss_type = "ForCausalLM"
    return model


def windows() -> list[dict[str, list[int]]]:
    """Overlapping windows of characters, as a Trainer's dataset."""
    codes = [ord(letter) for letter in TEXT]
    cuts = [codes[i : i + LENGTH] for i in range(0, len(codes) - LENGTH, 4)]
    return [{"input_ids": cut, "labels": cut} for cut in cuts]


def batches(count: int) -> list[dict[str, Tensor]]:
    """The first batches of ``windows()`` in order."""
    rows = windows()
    return [_stacked(rows[i * BATCH : (i + 1) * BATCH]) for i in range(count)]


def _stacked(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    return {key: torch.tensor([row[key] for row in rows]) for key in rows[0]}
