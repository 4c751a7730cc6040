"""How large an optimizer's updates are: measured on copies, by its own step.

The root mean square of the entries of W_t - W_(t+1), divided by lr, with decay left out. It is averaged over
the second half of a few steps, when averages of gradients have begun to settle.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from steepest.kernels.torch_fused import is_adam
from steepest.numeric import as_tensor
from steepest.optimizer import RuleOptimizer
from steepest.pieces import cut
from steepest.unwrapping import innermost
from steepest.views import initial_state

STEPS = 32
ENOUGH = 2**15
"""So many entries measure the size of an elementwise rule's update to half a percent."""
BACKWARD = Callable[[], Any]


class Probe:
    """An optimizer's double: same class and settings, other parameters, no state yet.

    ``stand_ins`` maps parameters to what stands in for them; parameters without one are left out.
    """

    def __init__(self, optimizer: Optimizer, stand_ins: Mapping[Tensor, Tensor]) -> None:
        groups = []
        for group in optimizer.param_groups:
            lr = float(group["lr"])
            own = {k: v for k, v in group.items() if k != "param_names"}
            own["params"] = [stand_ins[p] for p in group["params"] if p in stand_ins]
            own["lr"] = lr if lr > 0 else 1e-3
            if "weight_decay" in own:
                own["weight_decay"] = 0.0
            groups.append(own)
        double = type(optimizer).__new__(type(optimizer))
        kept = optimizer.__getstate__()
        double.__setstate__({**kept, "state": defaultdict(dict), "param_groups": groups})
        self._optimizer = double
        self._totals = {id(p): 0.0 for group in groups for p in group["params"]}
        self._counted = 0

    def step(self, loss: float, *, counts: bool) -> None:
        """Take a step with the gradients the stand-ins hold; ``counts`` says whether it is measured."""
        groups = self._optimizer.param_groups
        before = [[p.detach().clone() for p in g["params"]] for g in groups] if counts else []
        value: Any = torch.tensor(loss, device="cpu")
        self._optimizer.step(lambda: value)
        if not counts:
            return
        self._counted += 1
        for group, old in zip(groups, before, strict=True):
            for p, was in zip(group["params"], old, strict=True):
                moved = (was - p.detach()).double().square().mean().item()
                self._totals[id(p)] += moved / group["lr"] ** 2

    def state_after_a_step(self) -> Mapping[str, Any]:
        """Return the state of the only stand-in after a step with a zero gradient."""
        [stand_in] = [p for group in self._optimizer.param_groups for p in group["params"]]
        stand_in.grad = torch.zeros_like(stand_in)
        self._optimizer.step()
        return self._optimizer.state[stand_in]

    def rms(self, stand_in: Tensor) -> float:
        """Return the root mean square of the updates counted, at lr = 1."""
        return math.sqrt(self._totals[id(stand_in)] / max(1, self._counted))


def update_rms(
    optimizer: Optimizer,
    *,
    backward: BACKWARD | None = None,
    steps: int = STEPS,
    gradient_norm: float = 1.0,
    seed: int = 0,
) -> dict[Tensor, float]:
    """Return the root mean square of every parameter's update at lr = 1, without touching the parameters.

    Args:
        optimizer: any ``torch.optim.Optimizer`` that steps from gradients alone, or one that Accelerate or
            Lightning has wrapped.
        backward: clears the gradients, draws a batch, calls ``loss.backward()`` and returns the loss; called
            ``steps`` times at the weights as they are. By default gradients are independent normal numbers,
            and one parameter of each shape in a group is measured for all of them.
        steps: steps taken; the second half is measured.
        gradient_norm: norm of a random gradient of all parameters together.
        seed: of the random gradients; torch's own generators are not used.

    Raises:
        ValueError: for KFAC, whose step needs its layers, and for what steps another optimizer.
    """
    optimizer = innermost(optimizer)
    if hasattr(optimizer, "remove_hooks"):
        raise ValueError(
            f"{type(optimizer).__name__} steps from what its layers see, not from gradients alone: its "
            "update cannot be measured this way"
        )
    if backward is not None:
        return _on_gradients(optimizer, backward, steps)
    return _on_noise(optimizer, steps, gradient_norm, seed)


def _on_noise(optimizer: Optimizer, steps: int, gradient_norm: float, seed: int) -> dict[Tensor, float]:
    entries = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    scale = gradient_norm / math.sqrt(max(1, entries))
    generator = torch.Generator().manual_seed(seed)
    stands: dict[Tensor, Tensor] = {}
    like: dict[Tensor, Tensor] = {}
    seen: dict[Any, Tensor] = {}
    for i, group in enumerate(optimizer.param_groups):
        elementwise = isinstance(optimizer, RuleOptimizer) and is_adam(optimizer._rule(group))
        elementwise = elementwise and not cut(group)  # whose stand-ins must have the parts' sides
        for p in group["params"]:
            if not p.numel():
                continue
            first = seen.setdefault((i, None if elementwise and p.numel() >= ENOUGH else p.shape), p)
            like[p] = first
            if first is p:
                stands[p] = _stand_in(p, elementwise, generator)
    probe = Probe(optimizer, stands)
    for t in range(steps):
        for stand in stands.values():
            noise = torch.randn(stand.shape, generator=generator, dtype=torch.float32, device="cpu")
            stand.grad = (noise * scale).to(stand)
        probe.step(1.0, counts=t >= steps // 2)
    measured = {p: probe.rms(stand) for p, stand in stands.items()}
    return {p: measured[first] for p, first in like.items()}


def _on_gradients(optimizer: Optimizer, backward: BACKWARD, steps: int) -> dict[Tensor, float]:
    params = [p for group in optimizer.param_groups for p in group["params"] if p.numel()]
    stands = {p: _weights(p).requires_grad_() for p in params}
    probe = Probe(optimizer, stands)
    for t in range(steps):
        loss = backward()
        for p, stand in stands.items():
            stand.grad = None if p.grad is None else p.grad.detach().to(stand.dtype, copy=True)
        probe.step(1.0 if loss is None else float(as_tensor(loss).detach()), counts=t >= steps // 2)
    return {p: probe.rms(stand) for p, stand in stands.items()}


def _stand_in(param: Tensor, elementwise: bool, generator: torch.Generator) -> Tensor:
    if elementwise and param.numel() > ENOUGH:
        return torch.zeros(ENOUGH, device="cpu", requires_grad=True)
    if param.is_meta or type(param.data) is not Tensor:
        noise = torch.randn(param.shape, generator=generator, device="cpu")
        return (0.02 * noise).requires_grad_()
    return _weights(param).requires_grad_()


def _weights(param: Tensor) -> Tensor:
    """Return a copy of the weights with enough bits to see a small step."""
    wide = torch.float64 if param.dtype == torch.float64 else torch.float32
    return param.detach().to(wide, copy=True, memory_format=torch.contiguous_format)


def state_bytes(optimizer: Optimizer, group: Mapping[str, Any], param: Tensor) -> int:
    """Return the bytes of state of one parameter: what its rule will keep, or what it has by now."""
    state: Mapping[str, Any] = optimizer.state.get(param, {})
    if not state and isinstance(optimizer, RuleOptimizer):
        rule = optimizer._rule(group).for_shape(param.shape[group.get("batch_dims", 0) :])
        state = initial_state(rule, param, group, torch.device("meta"))
    elif not state:
        stand_in = torch.zeros(param.shape, dtype=param.dtype, device="cpu", requires_grad=True)
        state = Probe(optimizer, {param: stand_in}).state_after_a_step()
    return sum(v.numel() * v.element_size() for v in state.values() if isinstance(v, Tensor))
