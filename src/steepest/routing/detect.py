"""The role of a parameter, from its module, its name and its shape."""

from __future__ import annotations

import re

from torch import nn
from torch.nn.modules.conv import _ConvNd

from steepest.routing.leaves import Leaf

LORA = re.compile(r"(?:^|\.)lora_(?:embedding_)?(A|B)(?:\.|$)")
BIAS = re.compile(r"(?:^|_)bias(?:_|$)")
TABLE = re.compile(
    r"(?:^|_)(?:pos|position|positional|token|tokens|embed|embedding|embeddings)(?:_|$)|bias_table$|^rel_pos"
)
"""Last parts of names of learned tables that no ``Embedding`` holds."""
STATE_SPACE = frozenset({"A_log"})
"""Two-dimensional parameters whose entries act one by one."""


def role_of(leaf: Leaf, heads: set[nn.Parameter]) -> str:
    """Return the role of a parameter; ``heads`` are the weights of output heads.

    The first that applies: factor of an adapter, table of an ``Embedding`` (a head tied to one is an
    embedding), output head, normalisation, bias, table by name, vector by shape, convolution (depthwise
    kernels are vectors), stack of experts, matrix.
    """
    param, last = leaf.param, leaf.name.rpartition(".")[2]
    modules = [module for _, module in leaf.holders]
    wide = sum(size > 1 for size in param.shape) > 1
    if param.ndim >= 2 and (adapter := LORA.search(leaf.name)):
        return f"lora_{adapter[1]}"
    if param.ndim == 2 and any(is_table(m) for m in modules):
        return "embedding"
    if param in heads:
        return "head"
    if not wide and any("norm" in type(m).__name__.lower() for m in modules):
        return "norm"
    if param.ndim <= 1 and BIAS.search(last):
        return "bias"
    if last != "weight" and param.ndim >= 2 and TABLE.search(last):
        return "embedding"
    if not wide or last in STATE_SPACE:
        return "vector"
    if any(isinstance(m, _ConvNd) for m in modules):
        return "vector" if any(_is_depthwise(m) for m in modules) else "conv"
    if param.ndim == 3:
        return "embedding" if param.shape[0] == 1 else "expert"
    return "matrix" if param.ndim == 2 else "conv"


def is_table(module: nn.Module) -> bool:
    """Return whether a module looks rows up; sharded embeddings are told by what they call themselves."""
    named = type(module).__name__.endswith("Embedding") and hasattr(module, "num_embeddings")
    return isinstance(module, nn.Embedding | nn.EmbeddingBag) or named


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, _ConvNd) and module.groups == module.in_channels > 1
