"""Which weights are output heads.

Asked in this order, the first answer counts: the model's own word (``get_output_embeddings`` of
transformers, ``get_classifier`` of timm); usual names outside repeated blocks; and for models that say
nothing, the last matrix of all, if it is a ``Linear`` outside repeated blocks. A container counts with its
last linear layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from torch import nn

from steepest.routing.leaves import Leaf, plain_name

GETTERS = ("get_output_embeddings", "get_classifier")
NAMES = frozenset(
    {
        "classifier",
        "embed_out",
        "fc_out",
        "head",
        "heads",
        "lm_head",
        "logits",
        "output_layer",
        "output_projection",
        "proj_out",
        "qa_outputs",
        "score",
        "to_logits",
        "unembed",
        "unembedding",
    }
)
"""Last parts of the paths of output layers."""
TOP_NAMES = NAMES | {"fc", "output", "out"}
"""The same for direct children of the model."""


def find_heads(model: nn.Module, leaves: list[Leaf]) -> tuple[set[nn.Parameter], str | None]:
    """Return the weights of output heads, and a note if they were guessed from their position."""
    trainable = {leaf.param for leaf in leaves}
    says, told = _told(model, trainable)
    if told:
        return told, None
    named = {weight for module in _named(model) for weight in _weights(module, trainable)}
    if named or says:
        return named, None
    return _last(leaves)


def _told(model: nn.Module, trainable: set[nn.Parameter]) -> tuple[bool, set[nn.Parameter]]:
    """Return whether the model can be asked for its head, and the weights it names."""
    says = False
    for module in model.modules():
        for getter in (getattr(module, name, None) for name in GETTERS):
            if not callable(getter):
                continue
            says = True
            try:
                answer = getter()
            except Exception:  # a model of a library may inherit the method and not support it
                continue
            found = answer if isinstance(answer, tuple | list) else [answer]
            weights = {w for one in found if isinstance(one, nn.Module) for w in _weights(one, trainable)}
            if weights:
                return True, weights
    return says, set()


def _named(model: nn.Module) -> Iterable[nn.Module]:
    for path, module in model.named_modules():
        parts = plain_name(path).removeprefix("module.").split(".")
        if parts[-1] in (TOP_NAMES if len(parts) == 1 else NAMES) and not _in_blocks(parts):
            yield from module if isinstance(module, nn.ModuleList) else [module]


def _in_blocks(parts: list[str]) -> bool:
    """Return whether a path leads through numbered modules."""
    return any(part.isdecimal() for part in parts)


def _weights(module: nn.Module, trainable: set[nn.Parameter]) -> list[nn.Parameter]:
    """Return the weight of the last layer in a module that has one."""
    weights = [getattr(one, "weight", None) for one in module.modules()]
    found = [w for w in weights if isinstance(w, nn.Parameter) and w in trainable and w.ndim >= 2]
    return found[-1:]


def _last(leaves: list[Leaf]) -> tuple[set[nn.Parameter], str | None]:
    matrices = [leaf for leaf in leaves if leaf.param.ndim >= 2]
    if len(matrices) < 2:
        return set(), None
    module = matrices[-1].holders[0][1]
    chain = list(matrices[-1].around.values())
    in_a_block = any(_repeats(outer) and _is_block(inner) for outer, inner in pairwise(chain))
    if not isinstance(module, nn.Linear) or in_a_block:
        return set(), None
    name = matrices[-1].name
    return {matrices[-1].param}, (
        f"{name!r} is taken for the output head because it is the last layer; if it is not one, override it "
        f"with {{{name!r}: {{'role': 'matrix'}}}}"
    )


def _repeats(module: nn.Module) -> bool:
    """Return whether a module is a list of blocks: modules with children, in a sequence two of one kind."""
    if not isinstance(module, nn.ModuleList | nn.Sequential):
        return False
    kinds = [type(child) for child in module if _is_block(child)]
    return bool(kinds) and (isinstance(module, nn.ModuleList) or len(set(kinds)) < len(kinds))


def _is_block(module: nn.Module) -> bool:
    return any(True for _ in module.children())
