"""What a parameter is in its network, told in one word.

Roles are facts about a model; optimizers draw the conclusions. A hybrid sends the roles in ``AUXILIARY`` to
its auxiliary rule, an optimizer with one rule for everything takes them all.
"""

from __future__ import annotations

ROLES: dict[str, str] = {
    "matrix": "a linear map between hidden features",
    "conv": "a convolution that mixes channels",
    "embedding": "a table that is looked up: tokens, positions, learned tokens; a tied output head too",
    "head": "the last linear map, to logits or targets",
    "norm": "gain and shift of a normalisation layer",
    "bias": "a bias",
    "vector": "any other tensor without two sides to mix: layer scales, depthwise kernels",
    "lora_A": "the factor of a low-rank adapter that reads the input, (rank, in)",
    "lora_B": "the factor of a low-rank adapter that writes the output, (out, rank)",
    "expert": "a stack of matrices, one for each expert, along the first dimension",
}
"""Every role and what it means."""

AUXILIARY = frozenset({"embedding", "head", "norm", "bias", "vector"})
"""Roles that a hybrid's matrix rule is not meant for."""
