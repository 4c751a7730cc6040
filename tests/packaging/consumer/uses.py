"""A project that uses the library, checked with pyright's strict settings: nothing here may be unknown."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

import steepest
from steepest.checks import CheckReport, check_optimizer
from steepest.distributed import counting, split_work
from steepest.gallery import draw_portrait
from steepest.linalg import orthogonality_error, polar
from steepest.race import Task


def optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
    groups: steepest.ParamGroups = steepest.param_groups(model)
    return [
        steepest.ANDI(model.parameters(), lr=0.02, momentum=0.9),
        steepest.Muon(groups, lr=0.02, aux={"lr": 1e-3}),
        steepest.AdamW([{"params": list(model.parameters()), "lr": 1e-3}], betas=(0.9, 0.99)),
        steepest.KFAC(model, lr=1e-2),
        steepest.cautious(steepest.Muon)(model.parameters(), lr=0.02),
        steepest.Steepest(
            model.parameters(),
            lr=1e-3,
            norm=steepest.Spectral(orthogonalizer="svd"),
            preconditioner=steepest.Diagonal(power=0.5, beta=0.95),
            momentum=steepest.EMA(0.95, nesterov=True),
            step=steepest.UnitLMO("original"),
        ),
    ]


def train(optimizer: torch.optim.Optimizer, loss_of: Callable[[], Tensor]) -> float:
    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()  # pyright: ignore[reportUnknownMemberType] # torch leaves its arguments untyped
        return loss

    LambdaLR(optimizer, lambda step: 1 - step / 10)
    loss: Tensor = closure()
    return float(loss)


def read(model: nn.Module) -> tuple[float, float, bool]:
    found = steepest.suggest_lr("Muon", adamw_lr=3e-4, model=model)
    rule = steepest.recipes.MUON_SQUARED
    norm: steepest.Norm = rule.norm
    value: Tensor = norm.value(torch.ones(1, 2, 2))
    error: Tensor = orthogonality_error(polar(torch.ones(4, 4)))
    report: CheckReport = check_optimizer(torch.optim.AdamW, lr=1e-3)
    return found.lr, float(value + error), report.passed


def parts(task: Task) -> tuple[str, Callable[..., object], Callable[..., object], Callable[..., object]]:
    return task.name, split_work, counting, draw_portrait
