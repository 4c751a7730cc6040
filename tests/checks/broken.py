"""Optimizers that each break one promise, as the smallest change of a correct one.

``BROKEN`` maps each class to the checks that must turn red under ``strict=True``, and no others may.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from .plain import PlainMomentum

BROKEN: dict[type[torch.optim.Optimizer], set[str]] = {}


def broken(*red: str):
    def note(cls: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
        BROKEN[cls] = set(red)
        return cls

    return note


# Clause 1


@broken("param_groups.generator")
class ReadsParamsTwice(PlainMomentum):
    def __init__(self, params: Any, *args: Any, **kwargs: Any):
        if not isinstance(params, Tensor):
            assert all(item is not None for item in params)
        super().__init__(params, *args, **kwargs)


@broken("param_groups.named_parameters")
class DropsNames(PlainMomentum):
    def __init__(self, params: Any, *args: Any, **kwargs: Any):
        if isinstance(params, list):
            params = [item[1] if isinstance(item, tuple) else item for item in params]
        super().__init__(params, *args, **kwargs)


@broken("param_groups.add_mid_training")
class IgnoresLateGroups(PlainMomentum):
    groups_at_first = 0

    def collect(self) -> Any:
        self.groups_at_first = self.groups_at_first or len(self.param_groups)
        known = {id(p) for group in self.param_groups[: self.groups_at_first] for p in group["params"]}
        return [(group, param) for group, param in super().collect() if id(param) in known]


# Clause 2


@broken("closure.enable_grad")
class ClosureWithoutGrad(PlainMomentum):
    def evaluate(self, closure: Any) -> Any:
        return closure()


@broken("closure.loss_returned")
class DropsLoss(PlainMomentum):
    def evaluate(self, closure: Any) -> Any:
        super().evaluate(closure)


@broken("closure.same_trajectory")
class StepsTwiceWithClosure(PlainMomentum):
    def evaluate(self, closure: Any) -> Any:
        loss = super().evaluate(closure)
        self.advance()
        return loss


# Clause 3


@broken("hypers.per_group_override")
class FirstGroupRules(PlainMomentum):
    def apply(self, group: dict[str, Any], param: Tensor, step: Tensor) -> None:
        super().apply(self.param_groups[0], param, step)


@broken("hypers.unknown_argument", "hypers.unknown_argument_suggestion")
class SwallowsArguments(PlainMomentum):
    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.05,
        momentum: float | Tensor = 0.9,
        weight_decay: float | Tensor = 0.0,
        maximize: bool = False,
        fused: bool | None = None,
        nonfinite: str | None = None,
        **ignored: Any,
    ):
        super().__init__(
            params,
            lr,
            momentum=momentum,
            weight_decay=weight_decay,
            maximize=maximize,
            fused=fused,
            nonfinite=nonfinite,
        )


@broken("hypers.bad_lr", "hypers.bad_value", "hypers.bad_group_value")
class AcceptsAnything(PlainMomentum):
    def validate(self, group: dict[str, Any]) -> None:
        pass


@broken("hypers.bad_value", "hypers.bad_group_value")
class TerseErrors(PlainMomentum):
    def validate(self, group: dict[str, Any]) -> None:
        try:
            super().validate(group)
        except (ValueError, TypeError) as error:
            raise type(error)("bad hyperparameter") from error


# Clause 4


@broken("hypers.tensor_lr")
class ChangesTensorLr(PlainMomentum):
    def apply(self, group: dict[str, Any], param: Tensor, step: Tensor) -> None:
        super().apply(group, param, step)
        if isinstance(group["lr"], Tensor):
            group["lr"].mul_(0.99)


@broken("hypers.tensor_others")
class RefusesTensorMomentum(PlainMomentum):
    def validate(self, group: dict[str, Any]) -> None:
        super().validate(group)
        if isinstance(group["momentum"], Tensor):
            raise TypeError("momentum must be a number")


@broken("identity.hypers_read_at_step")
class MomentumFromConstructor(PlainMomentum):
    def update(self, group: dict[str, Any], param: Tensor) -> None:
        super().update({**group, "momentum": self.defaults["momentum"]}, param)


# Clause 5


@broken("state.keyed_by_parameters")
class StateUnderAName(PlainMomentum):
    def update(self, group: dict[str, Any], param: Tensor) -> None:
        super().update(group, param)
        self.state["last_lr"] = float(group["lr"])  # type: ignore[index]


@broken("state.low_precision_bits", "state.resume_low_precision")
class LeavesCastingToTorch(PlainMomentum):
    load_state_dict = torch.optim.Optimizer.load_state_dict


class Opaque:
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque)

    __hash__ = object.__hash__


@broken(
    "state.plain",
    "state.weights_only",
    "state.resume_bitwise",
    "state.resume_float64",
    "state.resume_low_precision",
    "state.restored_by_load",
    "state.low_precision_bits",
)
class ObjectInState(PlainMomentum):
    def update(self, group: dict[str, Any], param: Tensor) -> None:
        super().update(group, param)
        self.state[param]["note"] = Opaque()


@broken("state.deepcopy", "state.pickle")
class DropsStateInCopies(PlainMomentum):
    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "state": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.state = defaultdict(dict, self.state)


# Clause 6


@broken(
    "state.resume_bitwise",
    "state.resume_float64",
    "state.resume_low_precision",
    "state.restored_by_load",
)
class CountsOutsideState(PlainMomentum):
    count = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "count": self.count}

    def collect(self) -> Any:
        self.count += 1
        return super().collect()

    def direction(self, group: dict[str, Any], param: Tensor) -> Tensor:
        return super().direction(group, param) * min(1.0, self.count / 8)


# Clause 7


@broken("step.none_grad_untouched")
class DecaysWithoutGradient(PlainMomentum):
    def collect(self) -> Any:
        with torch.no_grad():
            for group in self.param_groups:
                for param in group["params"]:
                    if param.grad is None:
                        param.mul_(1 - float(group["lr"]) * float(group["weight_decay"]))
        return super().collect()


@broken("step.grad_unchanged")
class DecaysIntoGradient(PlainMomentum):
    def apply(self, group: dict[str, Any], param: Tensor, step: Tensor) -> None:
        if group["weight_decay"] and param.grad is not None:
            param.grad.add_(param, alpha=float(group["weight_decay"]))
        super().apply(group, param, step)


@broken("step.lr_zero_does_not_move")
class DecayWithoutLr(PlainMomentum):
    def apply(self, group: dict[str, Any], param: Tensor, step: Tensor) -> None:
        param.mul_(1 - 0.01 * float(group["weight_decay"]))
        param.sub_(float(group["lr"]) * step)


@broken("step.zero_grad_finite")
class DividesByLargest(PlainMomentum):
    def direction(self, group: dict[str, Any], param: Tensor) -> Tensor:
        gradient = super().direction(group, param)
        return gradient / gradient.abs().amax() if gradient.numel() else gradient


@broken("step.descends", "maximize.negated_gradient")
class Climbs(PlainMomentum):
    def direction(self, group: dict[str, Any], param: Tensor) -> Tensor:
        return -param.grad if param.grad is not None else param


@broken("step.grad_not_kept")
class KeepsGradient(PlainMomentum):
    def update(self, group: dict[str, Any], param: Tensor) -> None:
        if param.grad is not None and param.dtype.itemsize > 2:
            first = param.grad if group["fused"] is None and param.grad.is_contiguous() else None
            if first is not None and not group["maximize"] and "momentum_buffer" not in self.state[param]:
                self.state[param]["momentum_buffer"] = first.detach()
                return self.apply(group, param, first)
            if self.state[param].get("momentum_buffer") is not None:
                self.state[param]["momentum_buffer"] = self.state[param]["momentum_buffer"] + 0
        return super().update(group, param)


# Clause 8


@broken("scale.huge_gradients")
class SquaresFirst(PlainMomentum):
    def direction(self, group: dict[str, Any], param: Tensor) -> Tensor:
        gradient = super().direction(group, param)
        size = (1 + gradient.square().sum()).sqrt()
        return gradient / size * size


@broken("scale.tiny_gradients")
class DividesByTinyNorm(PlainMomentum):
    def direction(self, group: dict[str, Any], param: Tensor) -> Tensor:
        gradient = super().direction(group, param)
        return gradient / gradient.square().sum().sqrt() if gradient.any() else gradient


@broken("nonfinite.not_silent", "nonfinite.policy")
class HidesNonFinite(PlainMomentum):
    def admit(self, work: Any) -> bool:
        return True

    def apply(self, group: dict[str, Any], param: Tensor, step: Tensor) -> None:
        super().apply(group, param, step.nan_to_num(0.0, 0.0, 0.0))


@broken("nonfinite.policy")
class SkipsInsteadOfRaising(PlainMomentum):
    def admit(self, work: Any) -> bool:
        try:
            return super().admit(work)
        except FloatingPointError:
            return False


# Clause 9


@broken("shapes.scalar")
class NeedsADimension(PlainMomentum):
    def direction(self, group: dict[str, Any], param: Tensor) -> Tensor:
        assert param.shape[0] >= 0
        return super().direction(group, param)


@broken("shapes.noncontiguous", "shapes.channels_last")
class MemoryOrder(PlainMomentum):
    def apply(self, group: dict[str, Any], param: Tensor, step: Tensor) -> None:
        flat = param.as_strided((param.numel(),), (1,))
        super().apply(group, flat, step.reshape(-1))


@broken("errors.sparse_changes_nothing")
class FindsSparseTooLate(PlainMomentum):
    def check_kind(self, param: Tensor) -> None:
        if param.is_complex():
            super().check_kind(param)

    def admit(self, work: Any) -> bool:
        return super().admit([(group, p) for group, p in work if p.grad is not None and not p.grad.is_sparse])

    def update(self, group: dict[str, Any], param: Tensor) -> None:
        super().check_kind(param)
        super().update(group, param)


@broken("errors.complex")
class DropsImaginaryPart(PlainMomentum):
    def check_kind(self, param: Tensor) -> None:
        if not param.is_complex():
            super().check_kind(param)

    def apply(self, group: dict[str, Any], param: Tensor, step: Tensor) -> None:
        super().apply(group, param, step.real if step.is_complex() else step)


@broken("shapes.zero_element")
class NeedsElements(PlainMomentum):
    def direction(self, group: dict[str, Any], param: Tensor) -> Tensor:
        assert param.abs().amax() >= 0
        return super().direction(group, param)


# Clause 10


@broken("identity.param_data_replaced")
class KeepsStorage(PlainMomentum):
    def apply(self, group: dict[str, Any], param: Tensor, step: Tensor) -> None:
        kept = self.__dict__.setdefault("kept", {})
        storage = kept.setdefault(id(param), (param, param.data))[1]
        super().apply(group, storage, step)


@broken("identity.param_swapped_in_group", "param_groups.add_mid_training")
class KeepsParameterList(PlainMomentum):
    def collect(self) -> Any:
        if "kept" not in self.__dict__:
            self.kept = [(index, p) for index, group in enumerate(self.param_groups) for p in group["params"]]
        return [(self.param_groups[index], param) for index, param in self.kept if param.grad is not None]


@broken(
    "identity.one_parameter_per_optimizer",
    "param_groups.add",
    "param_groups.add_mid_training",
    "shapes.zero_element",
)
class SharesTheStep(PlainMomentum):
    def apply(self, group: dict[str, Any], param: Tensor, step: Tensor) -> None:
        super().apply(group, param, step / sum(len(group["params"]) for group in self.param_groups))


@broken("identity.groups_after_load")
class KeepsGroupsAcrossLoad(PlainMomentum):
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        before = float(self.param_groups[0]["lr"]) if self.state else None
        super().load_state_dict(state_dict)
        self.kept_lr = before

    def apply(self, group: dict[str, Any], param: Tensor, step: Tensor) -> None:
        kept = getattr(self, "kept_lr", None)
        super().apply(group if kept is None else {**group, "lr": kept}, param, step)


# Clause 11


@broken("maximize.negated_gradient")
class MaximizesDecayToo(PlainMomentum):
    def apply(self, group: dict[str, Any], param: Tensor, step: Tensor) -> None:
        sign = -1 if group["maximize"] else 1
        super().apply({**group, "weight_decay": sign * float(group["weight_decay"])}, param, step)


@broken("paths.fused_agrees")
class FusedDrifts(PlainMomentum):
    def accumulate_fused(self, buffer: Tensor, gradient: Tensor, momentum: float) -> None:
        super().accumulate_fused(buffer, gradient, momentum * 0.999)


# Clause 12


@broken("precision.float64_gradients")
class HiddenFloat32(PlainMomentum):
    def direction(self, group: dict[str, Any], param: Tensor) -> Tensor:
        return super().direction(group, param).float().to(param.dtype)


@broken("precision.float64_gradients")
class HiddenBfloat16OnHalfThePath(PlainMomentum):
    def direction(self, group: dict[str, Any], param: Tensor) -> Tensor:
        gradient = super().direction(group, param)
        return (
            gradient
            if param.dtype != torch.float64
            else 0.5 * gradient + 0.5 * gradient.bfloat16().to(param.dtype)
        )


@broken("precision.float64_lr")
class Float32Lr(PlainMomentum):
    def apply(self, group: dict[str, Any], param: Tensor, step: Tensor) -> None:
        super().apply({**group, "lr": torch.tensor(float(group["lr"]), dtype=torch.float32)}, param, step)


# A narrow weight hides small changes of everything that moves it.
@broken("precision.float64_weights", "precision.float64_gradients", "precision.float64_lr")
class Float32Weights(PlainMomentum):
    def apply(self, group: dict[str, Any], param: Tensor, step: Tensor) -> None:
        super().apply(group, param, step)
        if param.dtype == torch.float64:
            param.copy_(param.float())


@broken("precision.float64_state", "precision.float64_gradients", "precision.float64_lr")
class Float32State(PlainMomentum):
    def update(self, group: dict[str, Any], param: Tensor) -> None:
        if "momentum_buffer" not in self.state[param]:
            self.state[param]["momentum_buffer"] = torch.zeros_like(param, dtype=torch.float32)
        super().update(group, param)
