"""A plain, correct momentum optimizer that satisfies the whole contract, made of small overridable parts."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor


class PlainMomentum(torch.optim.Optimizer):
    """M <- momentum M + G; W <- (1 - lr weight_decay) W - lr M."""

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.05,
        *,
        momentum: float | Tensor = 0.9,
        weight_decay: float | Tensor = 0.0,
        maximize: bool = False,
        fused: bool | None = None,
        nonfinite: str | None = None,
        **unknown: Any,
    ):
        for name in unknown:
            close = min(_KNOWN, key=lambda known: sorted(known) != sorted(name) and known[0] != name[0])
            raise TypeError(f"unknown argument {name!r}; did you mean {close!r}?")
        if nonfinite not in (None, "raise", "skip", "propagate"):
            raise ValueError(f"nonfinite must be 'raise', 'skip' or 'propagate', got {nonfinite!r}")
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "weight_decay": weight_decay,
                "maximize": maximize,
                "fused": fused,
                "nonfinite": nonfinite,
            },
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self.validate({**self.defaults, **param_group})
        super().add_param_group(param_group)

    def validate(self, group: dict[str, Any]) -> None:
        for name, top in (("lr", math.inf), ("momentum", 1.0), ("weight_decay", math.inf)):
            value = group[name]
            if not isinstance(value, (int, float, Tensor)):
                raise TypeError(f"{name} must be a number in [0, {top}), got {value!r}")
            if not 0 <= value < top:
                raise ValueError(f"{name} must be in [0, {top}), got {value!r}")

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else self.evaluate(closure)
        self.advance()
        return loss

    def evaluate(self, closure: Any) -> Any:
        with torch.enable_grad():
            return closure()

    def advance(self) -> None:
        work = self.collect()
        for _, param in work:
            self.check_kind(param)
        if self.admit(work):
            for group, param in work:
                self.update(group, param)

    def collect(self) -> list[tuple[dict[str, Any], Tensor]]:
        return [(group, p) for group in self.param_groups for p in group["params"] if p.grad is not None]

    def check_kind(self, param: Tensor) -> None:
        if param.is_complex():
            raise RuntimeError("complex parameters are not supported")
        if param.grad is not None and param.grad.is_sparse:
            raise RuntimeError("sparse gradients are not supported")

    def admit(self, work: list[tuple[dict[str, Any], Tensor]]) -> bool:
        for group, param in work:
            if group["nonfinite"] == "propagate" or bool(_grad(param).isfinite().all()):
                continue
            if group["nonfinite"] == "skip":
                return False
            raise FloatingPointError("a gradient is not finite")
        return True

    def direction(self, group: dict[str, Any], param: Tensor) -> Tensor:
        return -_grad(param) if group["maximize"] else _grad(param)

    def update(self, group: dict[str, Any], param: Tensor) -> None:
        state, gradient = self.state[param], self.direction(group, param)
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(param, dtype=_wide(param))
        buffer = state["momentum_buffer"]
        if group["fused"]:
            self.accumulate_fused(buffer, gradient, float(group["momentum"]))
        else:
            buffer.mul_(float(group["momentum"])).add_(gradient)
        self.apply(group, param, buffer)

    def accumulate_fused(self, buffer: Tensor, gradient: Tensor, momentum: float) -> None:
        torch._foreach_mul_([buffer], momentum)
        torch._foreach_add_([buffer], [gradient.to(buffer.dtype)])

    def apply(self, group: dict[str, Any], param: Tensor, step: Tensor) -> None:
        param.mul_(1 - float(group["lr"]) * float(group["weight_decay"]))
        param.sub_(float(group["lr"]) * step)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        saved = state_dict["state"]
        params = [param for group in self.param_groups for param in group["params"]]
        for index, param in enumerate(params):
            if index in saved:
                self.state[param] = {name: copy.deepcopy(value) for name, value in saved[index].items()}


_KNOWN = ("lr", "momentum", "weight_decay", "maximize", "fused", "nonfinite")


def _grad(param: Tensor) -> Tensor:
    assert param.grad is not None
    return param.grad


def _wide(param: Tensor) -> torch.dtype:
    return torch.promote_types(param.dtype, torch.float32)
