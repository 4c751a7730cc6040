"""Hugging Face's Trainer, and those derived from it, such as TRL's."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from steepest.integrations.chosen import built, chosen_class, rehearse, takes_model
from steepest.optimizer import RuleOptimizer
from steepest.roles import AUXILIARY
from steepest.routing import param_groups
from steepest.routing.match import Match
from steepest.spelling import suggest

Overrides = Mapping[Match, Mapping[str, Any]] | Iterable[tuple[Match, Mapping[str, Any]]]


class ModelOptimizer:
    """What the Trainer calls with its model: ``ModelOptimizer()(model, **kwargs)`` gives the optimizer.

    The Trainer tells such a factory from an optimizer's class by its not being one, and hands it the model
    as it is trained: with adapters, on its device. Users have it from :func:`for_trainer`.
    """

    def __call__(
        self,
        model: nn.Module,
        *,
        optimizer: type[Optimizer],
        hyperparameters: Mapping[str, Any],
        overrides: Overrides = (),
        roles: Mapping[str, Mapping[str, Any]] | None = None,
        split_fused: bool = False,
    ) -> Optimizer:
        """Return the optimizer for a model, its parameters routed by role."""
        if takes_model(optimizer):
            return built(optimizer, model, hyperparameters)
        groups = param_groups(model, overrides, roles=roles, split_fused=split_fused)
        # The Trainer logs the rate of the first group: let it be one of the method's own.
        return built(optimizer, sorted(groups, key=_auxiliary), hyperparameters)


def _auxiliary(group: Mapping[str, Any]) -> bool:
    return group.get("rule", "aux" if group["role"] in AUXILIARY else "matrix") == "aux"


def for_trainer(
    optimizer: str | type[Optimizer],
    *,
    overrides: Overrides = (),
    roles: Mapping[str, Mapping[str, Any]] | None = None,
    split_fused: bool = False,
    **hyperparameters: Any,
) -> tuple[type[Any], dict[str, Any]]:
    """Return ``optimizer_cls_and_kwargs`` of a Trainer for an optimizer whose parameters are routed by role.

    The Trainer builds the optimizer from its own model when training begins, so that adapters, devices,
    sharding, ``model_init`` and hyperparameter search are all in place. Groups are those of
    :func:`steepest.param_groups`: Muon and other hybrids give embeddings, head, norms and biases to their
    auxiliary AdamW. The learning rate scheduler of the Trainer drives all groups.

    What the Trainer says of its own optimizer is not read: ``learning_rate``, ``weight_decay``, ``adam_*``
    and ``optim`` in ``TrainingArguments``. Give them here. Of the groups, those of the method's own rule come
    first, so that the ``learning_rate`` in the log is its own.

    Args:
        optimizer: a name ("Muon"), a class, or "module:Class".
        overrides, roles, split_fused: as in :func:`steepest.param_groups`.
        **hyperparameters: the optimizer's arguments, such as ``lr`` and ``aux``.

    Returns:
        What ``Trainer(optimizer_cls_and_kwargs=...)`` takes, transformers 5 or later.

    Raises:
        TypeError, ValueError: at once, for names, arguments and values the optimizer does not know, and for
            methods whose step needs the loss (``polyak=True``). When training begins, for overrides that do
            not fit the model.

    When not to use:
        With DeepSpeed's own optimizers, which are named in its configuration.

    Example:
        >>> from steepest.integrations.hf import for_trainer
        >>> chosen = for_trainer("Muon", lr=0.02, aux={"lr": 3e-4}, overrides={"*.c_proj": {"lr": 0.01}})
        >>> # Trainer(model=model, args=args, train_dataset=data, optimizer_cls_and_kwargs=chosen).train()
        >>> for_trainer("Muon", lr=0.02, momentun=0.9)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        TypeError: Muon got an unknown argument 'momentun'; did you mean 'momentum'? Known: ...
    """
    cls = chosen_class(optimizer)
    _refuse_misspelt(cls, hyperparameters)
    rehearsed = rehearse(cls, hyperparameters)
    if isinstance(rehearsed, RuleOptimizer) and any(
        rehearsed.recipe(group).step.needs_loss for group in rehearsed.param_groups
    ):
        raise ValueError(
            f"{cls.__name__} would take its step from the loss, which the Trainer does not hand to step(); "
            "leave out polyak=True or the Polyak step"
        )
    ordered = list(overrides.items() if isinstance(overrides, Mapping) else overrides)
    if takes_model(cls) and (ordered or roles or split_fused):
        raise ValueError(f"{cls.__name__} finds its layers itself: overrides, roles and split_fused stay out")
    param_groups(nn.Linear(1, 1), roles=roles, split_fused=split_fused)  # both are checked without the model
    return ModelOptimizer, {
        "optimizer": cls,
        "hyperparameters": dict(hyperparameters),
        "overrides": ordered,
        "roles": roles,
        "split_fused": split_fused,
    }


def _refuse_misspelt(cls: type[Optimizer], hyperparameters: Mapping[str, Any]) -> None:
    """Raise for a misspelt argument of :func:`for_trainer`, which the optimizer could not name."""
    known = inspect.signature(cls).parameters
    for name in hyperparameters:
        if name not in known and (hint := suggest(name, ("overrides", "roles", "split_fused"), cutoff=0.8)):
            raise TypeError(f"for_trainer got an unknown argument {name!r}{hint}")
