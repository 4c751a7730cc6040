"""Several matrices in one parameter: where to cut.

Sizes are counted along the rows (dimension 0 of one matrix) or the columns (dimension 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Size, nn

from steepest.routing.leaves import Leaf

THIRDS = frozenset({"qkv", "Wqkv", "c_attn", "qkv_proj", "in_proj", "to_qkv"})
HALVES = frozenset({"gate_up_proj"})
KEYS = ("split_sizes", "split_dim", "num_heads")


def known_split(leaf: Leaf) -> dict[str, Any]:
    """Return the cut of projections whose layout is known, or nothing.

    Queries, keys and values one after the other: ``in_proj_weight`` of ``MultiheadAttention``, and linear
    layers with one of the names in ``THIRDS`` three times as long as wide (transposed: as wide as long).
    Gates one after the other: ``LSTM`` (4), ``GRU`` (3), and linear layers named ``gate_up_proj`` (2).
    Interleaved layouts (``query_key_value`` of GPT-NeoX, BLOOM and Falcon) are not known.
    """
    path, module = leaf.holders[0]
    last, layer = leaf.name.rpartition(".")[2], path.rpartition(".")[2]
    if leaf.param.ndim != 2:
        return {}
    rows, columns = leaf.param.shape
    if isinstance(module, nn.MultiheadAttention) and last == "in_proj_weight":
        return {"split_sizes": 3}
    if isinstance(module, nn.RNNBase) and last.startswith(("weight_ih", "weight_hh")):
        parts = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
        return {"split_sizes": parts} if parts > 1 else {}
    if last == "weight" and layer in THIRDS and rows == 3 * columns:
        return {"split_sizes": 3}
    if last == "weight" and layer in THIRDS and columns == 3 * rows and type(module).__name__ == "Conv1D":
        return {"split_sizes": 3, "split_dim": 1}
    if last == "weight" and layer in HALVES and rows % 2 == 0:
        return {"split_sizes": 2}
    return {}


def resolved(options: Mapping[str, Any], shape: Size, name: str) -> dict[str, Any]:
    """Return options with ``split_sizes``, ``split_dim`` and ``num_heads`` as the sizes of all parts.

    ``split_sizes`` is a number of equal parts or the size of each; ``num_heads`` cuts the first part (or
    the whole) into so many heads, and the other parts into heads of that size. ``split_dim`` counts after
    the batch dimensions. Vectors stay whole.

    Raises:
        TypeError, ValueError: the sizes do not fit ``shape``, that of the parameter called ``name``.
    """
    if not any(key in options for key in KEYS):
        return dict(options)
    rest = {key: value for key, value in options.items() if key not in KEYS}
    dim = options.get("split_dim", 0)
    if dim not in (0, 1) or isinstance(dim, bool):
        raise ValueError(f"split_dim must be 0 (rows) or 1 (columns), got {dim!r} for {name!r}")
    one = shape[options.get("batch_dims", 0) :]
    if len(one) < 2:  # a bias beside its weight
        return rest
    side = one[dim]
    where = f"{name!r} of shape {tuple(shape)}, whose {('rows', 'columns')[dim]} are {side}"
    parts = _parts(options.get("split_sizes", 1), side, where)
    if "num_heads" in options:
        parts = _heads(options["num_heads"], parts, where)
    if len(parts) == 1:
        return rest
    return {**rest, "split_sizes": parts, **({"split_dim": dim} if dim else {})}


def _parts(sizes: Any, side: int, where: str) -> tuple[int, ...]:
    if isinstance(sizes, int) and not isinstance(sizes, bool):
        if sizes < 1 or side % sizes:
            raise ValueError(f"split_sizes={sizes} does not cut {where}, into equal parts")
        return (side // sizes,) * sizes
    if not isinstance(sizes, tuple | list) or not all(type(size) is int and size > 0 for size in sizes):
        raise TypeError(
            f"split_sizes must be a number of equal parts or a list of sizes, got {sizes!r} for {where}"
        )
    if sum(sizes) != side:
        raise ValueError(f"split_sizes={list(sizes)} sum to {sum(sizes)}, not to the side of {where}")
    return tuple(sizes)


def _heads(count: Any, parts: tuple[int, ...], where: str) -> tuple[int, ...]:
    if type(count) is not int or count < 1:
        raise TypeError(f"num_heads must be an integer >= 1, got {count!r} for {where}")
    width, rest = divmod(parts[0], count)
    if rest or any(size % width for size in parts):
        raise ValueError(
            f"num_heads={count} does not fit {where}: parts of {', '.join(map(str, parts))} are not made of "
            f"heads of {parts[0]}/{count}; give split_sizes with the queries first"
        )
    return (width,) * (sum(parts) // width)
