"""Parameter groups that print as a table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from steepest.roles import AUXILIARY
from steepest.text_table import aligned
from steepest.unwrapping import innermost
from steepest.update_size import state_bytes, update_rms

NUMBERED = re.compile(r"(?<![^.])\d+(?![^.])")
"""Numbers of blocks in names."""


@dataclass(frozen=True, eq=False)
class Claim:
    """One parameter: all its names, its role, and the options of its group."""

    names: tuple[str, ...]
    param: nn.Parameter
    role: str
    options: Mapping[str, Any]


class ParamGroups(list[dict[str, Any]]):
    """Groups for an optimizer: a list of dicts with ``params`` as (name, parameter) pairs and a ``role``.

    Iterating gives copies, so that several optimizers can be built from one plan. ``notes`` are remarks for
    the reader, printed under the table.
    """

    def __init__(self, claims: Sequence[Claim], notes: Sequence[str] = ()) -> None:
        self.claims = tuple(claims)
        self.notes = tuple(notes)
        groups: dict[Any, dict[str, Any]] = {}
        for claim in claims:
            key = (claim.role, *sorted((k, _identity(v)) for k, v in claim.options.items()))
            group = groups.setdefault(key, {"params": [], "role": claim.role, **claim.options})
            group["params"].append((claim.names[0], claim.param))
        super().__init__(groups.values())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for group in super().__iter__():
            yield {**group, "params": list(group["params"])}

    def __reduce_ex__(self, protocol: Any) -> Any:
        return ParamGroups, (self.claims, self.notes)

    def __str__(self) -> str:
        return self.table()

    @property
    def roles(self) -> dict[str, str]:
        """The role of every parameter by name."""
        return {claim.names[0]: claim.role for claim in self.claims}

    def table(self, optimizer: Optimizer | None = None, *, full: bool = False) -> str:
        """Return the plan as text: one line for each kind of parameter.

        With ``optimizer``, one built from these groups, lines tell its rule, lr, decay, the root mean square
        of its update at lr = 1 (measured on random gradients, see :func:`steepest.update_size.update_rms`)
        and its bytes of state. Without it, lr and decay are shown where the plan sets them.

        Args:
            optimizer: an optimizer that holds these parameters.
            full: a line for every parameter; by default blocks that differ only in their number share one.

        Raises:
            ValueError: ``optimizer`` does not hold these parameters.
        """
        optimizer = innermost(optimizer) if optimizer is not None else None
        held = _held(optimizer, self.claims) if optimizer is not None else None
        rms = update_rms(optimizer) if optimizer is not None else {}
        header = ["parameter", "shape", "role", "rule", "lr", "decay"]
        header += [] if optimizer is None else ["RMS at lr 1", "state"]
        kinds: dict[tuple[str, ...], list[int]] = {}
        names: dict[tuple[str, ...], list[str]] = {}
        for claim in self.claims:
            group = held[claim.param] if held else claim.options
            row = [
                _name(claim) if full else NUMBERED.sub("*", _name(claim)),
                _shape(claim),
                claim.role,
                _rule(claim, group, optimizer),
            ]
            row += [_number(group.get("lr")), _number(group.get("weight_decay"))]
            state = 0
            if optimizer is not None:
                row += [_number(rms.get(claim.param))]
                state = state_bytes(optimizer, group, claim.param)
            entry = kinds.setdefault(tuple(row), [0, 0, 0])
            names.setdefault(tuple(row), []).append(_name(claim))
            for i, value in enumerate((1, claim.param.numel(), state)):
                entry[i] += value
        rows = []
        for row, (count, _, state) in kinds.items():
            shape = row[1] if count == 1 else f"{row[1]} x {count}"
            rows.append(
                [_together(names[row]), shape, *row[2:], *([] if optimizer is None else [_bytes(state)])]
            )
        total = sum(entry[1] for entry in kinds.values())
        words = f"{len(self.claims)} parameters, {total:,} entries, {len(self)} groups"
        if optimizer is not None:
            words += f", {_bytes(sum(entry[2] for entry in kinds.values()))} of state"
        return "\n".join([*aligned([header, *rows]), words, *(f"Note: {note}" for note in self.notes)])


def _identity(value: Any) -> str:
    return f"tensor {id(value)}" if isinstance(value, Tensor) else repr(value)


def _held(optimizer: Optimizer, claims: Sequence[Claim]) -> dict[Tensor, Mapping[str, Any]]:
    held: dict[Tensor, Mapping[str, Any]]
    held = {param: group for group in optimizer.param_groups for param in group["params"]}
    for claim in claims:
        if claim.param not in held:
            raise ValueError(
                f"the {type(optimizer).__name__} given does not hold {claim.names[0]!r}: build it from these "
                "groups"
            )
    return held


def _name(claim: Claim) -> str:
    return claim.names[0] if len(claim.names) == 1 else f"{claim.names[0]} (= {claim.names[1]})"


def _together(names: Sequence[str]) -> str:
    """Return one name for several of one form, with stars where their numbers differ."""
    parts = zip(*(name.split(".") for name in names), strict=True)
    return ".".join(part[0] if len(set(part)) == 1 else "*" for part in parts)


def _shape(claim: Claim) -> str:
    told = "x".join(map(str, claim.param.shape)) or "scalar"
    sizes = claim.options.get("split_sizes")
    if sizes:
        same = len(set(sizes)) == 1
        cut = f"{len(sizes)} of {sizes[0]}" if same else "+".join(map(str, sizes))
        told += f" ({cut} {'columns' if claim.options.get('split_dim') else 'rows'})"
    return told


def _rule(claim: Claim, group: Mapping[str, Any], optimizer: Optimizer | None) -> str:
    if optimizer is None:
        return group.get("rule") or ("aux" if claim.role in AUXILIARY else "matrix")
    return "AdamW" if group.get("rule") == "aux" else type(optimizer).__name__


def _number(value: Any) -> str:
    return "" if value is None else f"{float(value):.3g}"


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.3g} {unit}"
        count /= 1000
    raise AssertionError
