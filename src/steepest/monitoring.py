"""What an optimizer does, per group, on the steps one asks for; nothing at all on the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from steepest.optimizer import RuleOptimizer
from steepest.spelling import spelled
from steepest.unwrapping import innermost

Sink = Callable[[dict[str, float], int], None]
TINY = torch.finfo(torch.float64).tiny


class Monitor:
    """Logs what every ``every``-th step of any torch optimizer did, group by group.

    Args:
        optimizer: of this library or any other, also wrapped by Accelerate or Lightning; it is watched by
            its step hooks and not changed.
        sink: where values go: an object with ``log(dict, step=...)`` (wandb, trackio), one with
            ``add_scalar(name, value, step)`` (TensorBoard's ``SummaryWriter``), or a function of the values
            by name and the step.
        every: how many steps apart, from the first on. Default 100.
        spectra: also ``orthogonality_error`` and ``condition``, which cost a decomposition of every matrix.
            Default False.
        prefix: put before every name. Default ``"optimizer/"``.

    Values of a group, called by its ``name`` or ``group0``, ``group1``, ...:

    - ``lr``;
    - ``gradient_norm``: Frobenius norm of all its gradients together;
    - ``weight_rms``, ``update_rms``: root mean square entry of its weights before the step, and of what the
      step changed them by, decay included; ``update_ratio``: the second over the first;
    - ``fallbacks``: refreshes of a preconditioner that failed so far and kept the old basis;
    - ``orthogonality_error``: the largest |s - 1| over the singular values s of each matrix's update,
      decay left out, divided by their root mean square; 0 for an exact polar factor;
    - ``condition``: the largest ratio of the largest to the smallest positive eigenvalue of a statistic
      (Kronecker factors ``left``, ``right``; ``exp_avg_sq`` and ``sum`` by their entries).

    A logged step keeps a copy of the weights while it lasts, and waits for the device once. The others cost
    a comparison of two integers. With sharded parameters every rank must watch, as the sums are over all;
    only ``fallbacks`` and ``condition`` of matrices that have an owner are of the rank's own matrices.

    Raises:
        TypeError: ``sink`` is none of the three, or ``optimizer`` is no torch optimizer.
        ValueError: ``every`` is not a positive integer.

    Example:
        >>> import torch, steepest
        >>> layer = torch.nn.Linear(8, 8)
        >>> optimizer = steepest.Muon(layer.parameters(), lr=0.02)
        >>> seen = {}
        >>> monitor = steepest.Monitor(optimizer, lambda values, step: seen.update(values), every=1)
        >>> layer(torch.eye(8)).square().sum().backward()
        >>> optimizer.step()
        >>> round(seen["optimizer/group0/lr"], 3), seen["optimizer/group0/update_rms"] > 0
        (0.02, True)
        >>> monitor.remove()
    """

    @spelled
    def __init__(
        self,
        optimizer: Optimizer,
        sink: Any,
        *,
        every: int = 100,
        spectra: bool = False,
        prefix: str = "optimizer/",
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {type(optimizer).__name__}")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every must be an integer >= 1, got {every!r}")
        optimizer = innermost(optimizer)
        self._sink = _sink_of(sink)
        self._every, self._spectra, self._prefix = every, spectra, prefix
        self._steps = 0
        self._before: dict[int, Tensor] | None = None
        self._hooks = [
            optimizer.register_step_pre_hook(self._remember),
            optimizer.register_step_post_hook(self._report),
        ]

    def remove(self) -> None:
        """Stop watching."""
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def _remember(self, optimizer: Optimizer, *_: Any) -> None:
        self._before = None
        if self._steps % self._every == 0:
            # Tensors may share an id only after they died, and the groups keep these alive.
            self._before = {
                id(p): p.detach().clone() for group in optimizer.param_groups for p in group["params"]
            }

    @torch.no_grad()
    def _report(self, optimizer: Optimizer, *_: Any) -> None:
        self._steps += 1
        before, self._before = self._before, None
        if before is None:
            return
        found: dict[str, Tensor | float] = {}
        for i, group in enumerate(optimizer.param_groups):
            name = f"{self._prefix}{group.get('name') or f'group{i}'}/"
            values = _group_values(optimizer, group, before, self._spectra)
            found |= {name + key: value for key, value in values.items()}
        self._sink(_read(found), self._steps)


def _group_values(
    optimizer: Optimizer, group: dict[str, Any], before: Mapping[int, Tensor], spectra: bool
) -> dict[str, Tensor | float]:
    """Return the values of one group; those on a device stay there."""
    moved = [(p, before[id(p)]) for p in group["params"] if id(p) in before and p.numel()]
    values: dict[str, Tensor | float] = {"lr": group["lr"]} if "lr" in group else {}
    if not moved:
        return values
    count = sum(p.numel() for p, _ in moved)
    weight = (_squares(old for _, old in moved) / count).sqrt()
    update = (_squares(p.double() - old.double() for p, old in moved) / count).sqrt()
    values |= {
        "gradient_norm": _squares(p.grad for p, _ in moved if p.grad is not None).sqrt(),
        "weight_rms": weight,
        "update_rms": update,
        "update_ratio": update / weight.clamp(min=TINY),
    }
    states = [optimizer.state[p] for p, _ in moved if p in optimizer.state]
    failed = [_gathered(own["fallbacks"].double().sum()) for own in states if "fallbacks" in own]
    if failed:
        values["fallbacks"] = _total(failed)
    if spectra:
        pairs = [
            (_gathered(p), _gathered(old), _kept(optimizer, group, p)) for p, old in moved if p.ndim == 2
        ]
        errors = [_orthogonality(new.double() - kept * old.double()) for new, old, kept in pairs]
        conditions = [value for own in states for value in _conditions(own)]
        values |= {"orthogonality_error": _largest(errors)} if errors else {}
        values |= {"condition": _largest(conditions)} if conditions else {}
    return values


def _kept(optimizer: Optimizer, group: dict[str, Any], param: Tensor) -> Any:
    """Return the factor that decay left of a weight; of other libraries' methods, if it was decoupled."""
    lr, decay = _number(group.get("lr", 0.0)), _number(group.get("weight_decay", 0.0))
    if isinstance(optimizer, RuleOptimizer):
        rule = optimizer._rule(group)
        if rule.decay == "constrained":
            decay = 1.0
        elif rule.decay == "l2" or rule.constraint:
            decay = 0.0
        lr = lr * rule.step.rate(param.shape)
    return 1 - lr * decay


def _orthogonality(update: Tensor) -> Tensor:
    finite = update.isfinite().all()
    singular = torch.linalg.svdvals(torch.where(finite, update, 0.0))  # which raises for NaN
    size = singular.square().mean().sqrt()
    error = torch.where(size > 0, (singular / size.clamp(min=TINY) - 1).abs().max(), 0.0)
    return torch.where(finite, error, math.nan)


def _conditions(own: Mapping[str, Any]) -> list[Tensor]:
    factors = [_gathered(own[side]) for side in ("left", "right") if isinstance(own.get(side), Tensor)]
    entries = [_eigenvalues(f.double()) for f in factors if f.ndim >= 2]
    entries += [_gathered(own[name]).double().flatten() for name in ("exp_avg_sq", "sum") if name in own]
    found = []
    for values in entries:
        largest = values.max()
        # Rounding leaves eigenvalues of about eps times the largest where the statistic has none.
        smallest = torch.where(values > largest * 1e-12, values, math.inf).min()
        found.append(torch.where(largest <= 0, 1.0, largest / smallest))
    return found


def _eigenvalues(factors: Tensor) -> Tensor:
    """Return the eigenvalues of all factors; NaN if one of them is not finite."""
    finite = factors.isfinite().all()
    values = torch.linalg.eigvalsh(torch.where(finite, factors, 0.0)).flatten()
    return torch.where(finite, values, math.nan)


def _squares(tensors: Any) -> Tensor:
    found = [_gathered(torch.linalg.vector_norm(_whole(t), dtype=torch.float64).square()) for t in tensors]
    return _total(found) if found else torch.zeros((), dtype=torch.float64)


def _total(values: list[Tensor]) -> Tensor:
    return torch.stack([value.to(values[0].device) for value in values]).sum()


def _largest(values: list[Tensor]) -> Tensor:
    return torch.stack([value.to(values[0].device) for value in values]).max()


def _gathered(value: Any) -> Tensor:
    """Return a sharded parameter's number summed over its shards."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _whole(tensor: Tensor) -> Tensor:
    return tensor.coalesce().values() if tensor.is_sparse else tensor


def _number(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) else value


def _read(values: Mapping[str, Tensor | float]) -> dict[str, float]:
    """Return numbers, waiting once for each device."""
    read = {name: float(value) for name, value in values.items() if not isinstance(value, Tensor)}
    devices = {value.device for value in values.values() if isinstance(value, Tensor)}
    for device in devices:
        here = {n: v for n, v in values.items() if isinstance(v, Tensor) and v.device == device}
        numbers = torch.stack([v.double().reshape(()) for v in here.values()]).tolist()
        read |= dict(zip(here, numbers, strict=True))
    return {name: read[name] for name in values}


def _sink_of(sink: Any) -> Sink:
    if callable(log := getattr(sink, "log", None)):

        def to_log(values: dict[str, float], step: int) -> None:
            log(values, step=step)

        return to_log
    if callable(add := getattr(sink, "add_scalar", None)):

        def to_writer(values: dict[str, float], step: int) -> None:
            for name, value in values.items():
                add(name, value, step)

        return to_writer
    if callable(sink):
        return cast(Sink, sink)
    raise TypeError(
        "sink must have log(dict, step=...) or add_scalar(name, value, step), or be a function of the values "
        f"and the step; got {sink!r}"
    )
