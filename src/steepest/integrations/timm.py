"""timm's registry of optimizers, so that ``create_optimizer_v2(model, "andi")`` finds the methods here."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from steepest._resolve import public_optimizers
from steepest.integrations.chosen import built, takes_model
from steepest.optimizer import RuleOptimizer
from steepest.optimizers import Steepest

PREFIX = "steepest-"


@dataclass(frozen=True)
class FromTimm:
    """What timm calls with its groups: the class, told what timm's group keys mean."""

    cls: type[RuleOptimizer]

    def __call__(self, params: Any, **options: Any) -> Optimizer:
        """Return the optimizer for parameters or groups as timm makes them."""
        entries = [params] if isinstance(params, Tensor) else list(params)
        groups = [self._read(entry) if isinstance(entry, Mapping) else entry for entry in entries]
        if "weight_decay" not in inspect.signature(self.cls).parameters:
            decays = [options.pop("weight_decay", 0.0)]
            decays += [group.get("weight_decay", 0.0) for group in groups if isinstance(group, Mapping)]
            if any(decays):
                raise ValueError(f"{self.cls.__name__} has no weight_decay, got {max(decays)}; leave it at 0")
        return built(self.cls, groups, options)

    def _read(self, group: Mapping[str, Any]) -> dict[str, Any]:
        read = {key: value for key, value in group.items() if key != "use_fallback"}
        if self.cls.hybrid and group.get("use_fallback"):
            read["rule"] = "aux"
        return read


def register(*, replace: bool = False) -> list[str]:
    """Make the optimizers known to timm, and return the names they have there.

    Every method but KFAC, which needs the model, and Steepest, which is composed of parts, is registered as
    ``steepest-NAME`` in small letters, and as ``NAME`` where timm has none of that name. May be called again.

    - ``lr`` and ``weight_decay`` go to every method. timm passes ``momentum=0.9`` to those that have it,
      unless told otherwise: for Muon's own default say ``momentum=0.95``. Other arguments
      (``aux={"lr": 3e-4}``, ``scale=...``) are passed on.
    - Hybrids such as Muon need to know which parameters are embeddings and heads: pass
      ``param_group_fn=steepest.param_groups``. Without it, timm's ``fallback_list`` and
      ``fallback_no_weight_decay`` name what goes to the auxiliary AdamW.
    - ``layer_decay`` works as for timm's own.

    Args:
        replace: let the plain names that timm has too (``muon``, ``adamw``, ...) stand for the methods here.

    Raises:
        TypeError: ``replace`` is not True or False.
        ModuleNotFoundError: timm is not installed.

    When not to use:
        With timm's ``lookahead_`` prefix, whose state in the wrapped optimizer does not load again.

    Example:
        >>> from steepest.integrations.timm import register
        >>> names = register()  # doctest: +SKIP
        >>> optimizer = timm.optim.create_optimizer_v2(model, "andi", lr=0.02)  # doctest: +SKIP
    """
    if not isinstance(replace, bool):
        raise TypeError(f"replace must be True or False, got {replace!r}")
    factory: Any = importlib.import_module("timm.optim._optim_factory")
    registry = factory.default_registry
    names = []
    for cls in public_optimizers().values():
        if not issubclass(cls, RuleOptimizer) or takes_model(cls) or cls is Steepest:
            continue
        plain = cls.__name__.lower()
        for name in (PREFIX + plain, plain):
            held = registry.get_optimizer_info(name) if name in registry.list_optimizers() else None
            ours = held is not None and held.opt_class == FromTimm(cls)
            if held is None or (replace and not ours):
                registry.register(_info(factory.OptimInfo, name, cls))
                ours = True
            if ours:
                names.append(name)
    return sorted(names)


def _info(make: Any, name: str, cls: type[RuleOptimizer]) -> Any:
    known = inspect.signature(cls).parameters
    return make(
        name=name,
        opt_class=FromTimm(cls),
        description=(cls.__doc__ or "").partition("\n")[0],
        has_eps="eps" in known,
        has_momentum="momentum" in known,
        has_betas="betas" in known,
    )
