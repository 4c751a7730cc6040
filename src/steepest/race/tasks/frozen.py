"""Lower layers of an encoder that are not trained: computed once for every sentence, left out of the model.

Without dropout, what they give does not change from step to step. A run then costs what its trained layers
cost, and the whole depth of the pretrained model is used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from steepest.race.records import RaceError
from steepest.race.tasks.pretrained import load_encoder

CHUNK = 64
"""Sentences computed at once."""


@torch.no_grad()
def outputs_below(model: str, frozen: int, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Return what the embeddings and so many layers, without dropout, make of sentences.

    Args:
        model: as `pretrained.place` reads it.
        frozen: layers, from the embeddings up; 0 is the embeddings alone.
        tokens: ids (n, t), padded.
        lengths: how many of each row count (n,).

    Returns:
        (n, t, width) in float32, zero where a row is padded.
    """
    # One layer more: what enters it is theirs, untouched by a norm that an architecture may end with.
    encoder: Any = load_encoder(model, frozen + 1).eval()
    outputs = torch.zeros(*tokens.shape, encoder.config.hidden_size)
    for index in lengths.argsort(stable=True).split(CHUNK):
        width = int(lengths[index].max())
        mask = torch.arange(width) < lengths[index, None]
        states = encoder(
            input_ids=tokens[index, :width], attention_mask=mask.long(), output_hidden_states=True
        ).hidden_states[frozen]
        outputs[index, :width] = states * mask[:, :, None]
    return outputs


def layers_above(encoder: Any, frozen: int, model: str) -> nn.Module:
    """Cut embeddings and so many layers off an encoder; it then takes their outputs as ``inputs_embeds``.

    Raises:
        RaceError: its embeddings or its layers cannot be told.
    """
    count = encoder.config.num_hidden_layers
    stacks = [m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if len(stacks) != 1 or not isinstance(getattr(encoder, "embeddings", None), nn.Module):
        raise RaceError(
            f"model={model!r} ({type(encoder).__name__}) cannot be cut above its frozen layers; "
            "the full preset trains it whole"
        )
    del stacks[0][:frozen]
    encoder.embeddings = _Given()
    return encoder


class _Given(nn.Module):
    """Stands in the place of embeddings and hands on the vectors among what it is given."""

    def forward(self, *given: Any, **named: Any) -> Tensor:
        return next(x for x in (*given, *named.values()) if isinstance(x, Tensor) and x.is_floating_point())
