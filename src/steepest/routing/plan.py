"""From a model to parameter groups: roles, options by role, ordered overrides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from steepest.hypers import CHECKS, FREE_KEYS, validate
from steepest.roles import ROLES
from steepest.routing.detect import role_of
from steepest.routing.fused import KEYS, known_split, resolved
from steepest.routing.heads import find_heads
from steepest.routing.leaves import Leaf, leaves_of
from steepest.routing.match import Match, matcher, nothing, written
from steepest.routing.table import Claim, ParamGroups
from steepest.spelling import spelled, suggest

KNOWN = frozenset({*CHECKS, *FREE_KEYS, *KEYS, "norm", "preconditioner", "step"}) - {"params", "param_names"}
"""Names of options that a misspelt one is compared with; others are a user's own."""


@spelled
def param_groups(
    model: nn.Module,
    overrides: Mapping[Match, Mapping[str, Any]] | Iterable[tuple[Match, Mapping[str, Any]]] = (),
    *,
    roles: Mapping[str, Mapping[str, Any]] | None = None,
    split_fused: bool = False,
) -> ParamGroups:
    """Return the parameter groups of a model, one for each role and set of options.

    Every trainable parameter is in exactly one group, tied ones under their first name. The role is found
    from modules, names, shapes and tying: ``matrix``, ``conv``, ``embedding`` (a head tied to one too),
    ``head``, ``norm``, ``bias``, ``vector``, ``lora_A``, ``lora_B``, ``expert``. Hybrids such
    as Muon and SOAP give ``embedding``, ``head``, ``norm``, ``bias`` and ``vector`` to their auxiliary AdamW;
    optimizers with one rule, such as ANDI and Scion, take all. Options, later ones win:

    - by default ``weight_decay=0`` for norms, biases, vectors that are not kernels, and what the model's
      own ``no_weight_decay()`` names (timm); ``batch_dims=1`` for experts;
    - ``roles[role]``;
    - the first override that matches.

    Args:
        model: any module: plain torch, transformers, timm, peft, wrapped or compiled.
        overrides: what to do with some parameters, as a dict or (match, options) pairs in order; the first
            match wins. A match is a shell pattern (``"blocks.*.attn"``) or ``re.compile(...)`` searched, for
            the name of a parameter or of a module around it; a module class, for parameters in such modules;
            or ``predicate(name, parameter)``. In a shell pattern ``*`` stands for dots too. Options are group
            keys: ``role``, ``rule`` (``"matrix"`` or ``"aux"``), ``lr``, ``weight_decay``, ``batch_dims``,
            and any other of the optimizer. Besides, for matrices side by side in one parameter:
            ``split_sizes`` (their sizes, or a number of equal parts), ``split_dim`` (0 rows, 1 columns),
            ``num_heads`` (heads in the first of them, or in the whole); biases beside them stay whole.
        roles: options by role.
        split_fused: whether projections with a known layout are stepped as their parts: queries, keys and
            values of ``MultiheadAttention``, timm and GPT-2; gates of LSTM and GRU; ``gate_up_proj``.

    Returns:
        A list of groups for any optimizer of this library, or of torch, which keeps unknown keys without
        reading them. Printed, it is a table; :meth:`ParamGroups.table` adds what an optimizer does.

    Raises:
        TypeError: ``model`` is no module, a match or an option is of the wrong kind or unknown.
        ValueError: an override matches nothing, or only what earlier ones have claimed; a role does not
            exist; sizes do not fit a parameter.

    When not to use:
        With KFAC, which finds layers itself. A layer called by hand, such as a matrix used elementwise, has
        a role that no rule can see: override it.

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Embedding(50, 16), torch.nn.Linear(16, 16), torch.nn.LayerNorm(16),
        ...     torch.nn.Linear(16, 50),
        ... )
        >>> groups = steepest.param_groups(model, {"1.weight": {"lr": 0.01}})
        >>> [(group["role"], len(group["params"])) for group in groups]
        [('embedding', 1), ('matrix', 1), ('bias', 2), ('norm', 2), ('head', 1)]
        >>> optimizer = steepest.Muon(groups, lr=0.02, aux=dict(lr=3e-4))
        >>> [(group["rule"], group["lr"]) for group in optimizer.param_groups]
        [('aux', 0.0003), ('matrix', 0.01), ('aux', 0.0003), ('aux', 0.0003), ('aux', 0.0003)]
    """
    if not isinstance(split_fused, bool):
        raise TypeError(f"split_fused must be True or False, got {split_fused!r}")
    by_role = _checked_roles(roles)
    ordered = _checked_overrides(overrides)
    leaves = leaves_of(model)
    claimed = _claimed(ordered, leaves)
    heads, note = find_heads(model, leaves)
    spared = _spared(model)
    claims = []
    for leaf in leaves:
        options = dict(claimed.get(leaf, {}))
        role = options.pop("role", None) or role_of(leaf, heads)
        asked = {**by_role.get(role, {}), **options}
        base = _by_default(role, leaf, spared)
        if split_fused and role == "matrix" and not any(key in asked for key in KEYS):
            base.update(known_split(leaf))
        merged = resolved({**base, **asked}, leaf.param.shape, leaf.name)
        claims.append(Claim(leaf.names, leaf.param, role, merged))
        if leaf.param in heads and leaf in claimed:
            note = None
    return ParamGroups(claims, (note,) if note else ())


def _by_default(role: str, leaf: Leaf, spared: set[str]) -> dict[str, Any]:
    if role == "expert" and leaf.param.ndim > 2:
        return {"batch_dims": 1}
    flat = sum(size > 1 for size in leaf.param.shape) <= 1
    spare = (role in ("norm", "bias", "vector") and flat) or not spared.isdisjoint(leaf.matchable)
    return {"weight_decay": 0.0} if spare else {}


def _spared(model: nn.Module) -> set[str]:
    """Return the names a model wants kept from weight decay, as timm's models tell them."""
    told = getattr(model, "no_weight_decay", None)
    if not callable(told):
        return set()
    names: Any = told()
    return set(names)


def _checked_roles(roles: Any) -> dict[str, Mapping[str, Any]]:
    if roles is not None and not isinstance(roles, Mapping):
        raise TypeError(f"roles must be a dict of options by role, got {roles!r}")
    for role, options in (roles or {}).items():
        _check_role(role, "roles")
        _check_options(options, f"roles[{role!r}]")
        if "role" in options:
            raise ValueError(f"roles[{role!r}] cannot set 'role'; use an override")
    return dict(roles or {})


def _checked_overrides(overrides: Any) -> list[tuple[Match, Mapping[str, Any]]]:
    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        raise TypeError(f"overrides must be a dict or a list of (match, options) pairs, got {overrides!r}")
    pairs = list(overrides.items() if isinstance(overrides, Mapping) else overrides)
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"overrides must hold (match, options) pairs, got {pair!r}")
        match, options = pair
        matcher(match)
        where = f"the override {written(match)}"
        _check_options(options, where)
        if "role" in options:
            _check_role(options["role"], where)
    return [(match, options) for match, options in pairs]


def _check_role(role: Any, where: str) -> None:
    if not isinstance(role, str) or role not in ROLES:
        hint = suggest(str(role), ROLES) or ";"
        raise ValueError(f"{where} names an unknown role {role!r}{hint} roles are {', '.join(ROLES)}")


def _check_options(options: Any, where: str) -> None:
    if not isinstance(options, Mapping):
        raise TypeError(f"{where} must give a dict of options such as {{'lr': 1e-3}}, got {options!r}")
    for key in options:
        if not isinstance(key, str) or key in ("params", "param_names"):
            raise TypeError(f"{where} cannot set {key!r}")
        if key not in KNOWN and (hint := suggest(key, KNOWN, cutoff=0.8)):
            raise TypeError(f"{where} has an unknown option {key!r}{hint}")
    try:
        validate({key: value for key, value in options.items() if key not in ("role", *KEYS)})
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from None


def _claimed(
    overrides: list[tuple[Match, Mapping[str, Any]]], leaves: list[Leaf]
) -> dict[Leaf, Mapping[str, Any]]:
    """Return the options of the first override that matches each parameter."""
    claimed: dict[Leaf, Mapping[str, Any]] = {}
    owner: dict[Leaf, Match] = {}
    for match, options in overrides:
        accepts = matcher(match)
        matched = [leaf for leaf in leaves if accepts(leaf)]
        if not matched:
            raise ValueError(f"the override {nothing(match, leaves)}")
        new = [leaf for leaf in matched if leaf not in claimed]
        if not new:
            first = owner[matched[0]]
            raise ValueError(
                f"the override {written(match)} changes nothing: all it matches, such as "
                f"{matched[0].name!r}, is claimed by the earlier {written(first)}; put it first"
            )
        if any(key in options for key in KEYS) and all(leaf.param.ndim < 2 for leaf in new):
            raise ValueError(
                f"the override {written(match)} cuts nothing: all it takes, such as {new[0].name!r}, are "
                "vectors"
            )
        for leaf in new:
            claimed[leaf], owner[leaf] = options, match
    return claimed
