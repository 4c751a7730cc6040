"""Small parameters and gradients, and every public optimizer with settings under which they all matter."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from steepest import (
    ANDI,
    EMA,
    KLSOAP,
    MADGRAD,
    SOAP,
    Adagrad,
    Adam,
    AdamSANIA,
    AdamW,
    ClippedScion,
    Diagonal,
    EnergyFloor,
    Equilibration,
    HeavyBall,
    KLShampoo,
    MuAdam,
    MuAdamSANIA,
    Muon,
    NormalizedSGD,
    OneSidedShampoo,
    RowNorm,
    Scion,
    Shampoo,
    SignSGD,
    Spectral,
    SPlus,
    Steepest,
    UnitLMO,
)

Make = Callable[..., Optimizer]

MAKERS: dict[str, Any] = {
    "ANDI": partial(ANDI, lr=0.02, threshold=3),
    "ANDI gradient start": partial(ANDI, lr=0.02, threshold=3, momentum_init="gradient", mixing="lateral"),
    "Adam": partial(Adam, lr=0.01, weight_decay=0.1),
    "Adagrad": partial(Adagrad, lr=0.01, eps=1e-3),
    "AdamSANIA": partial(AdamSANIA, lr=1e-3, eps=1e-2),
    "AdamW": partial(AdamW, lr=0.01),
    "ClippedScion": partial(ClippedScion, lr=0.02, rho=10.0),
    "KLSOAP": partial(KLSOAP, lr=1e-3, precondition_frequency=2),
    "KLShampoo": partial(KLShampoo, lr=1e-3, precondition_frequency=2),
    "MADGRAD": partial(MADGRAD, lr=0.01),
    "MuAdam": partial(MuAdam, lr=1e-3),
    "MuAdamSANIA": partial(MuAdamSANIA, lr=1e-3, eps=1e-2),
    "Muon": partial(Muon, lr=0.02),
    "NormalizedSGD": partial(NormalizedSGD, lr=0.1, momentum=0.9),
    "OneSidedShampoo": partial(OneSidedShampoo, lr=0.01),
    "SOAP": partial(SOAP, lr=0.01, precondition_frequency=2),
    "SPlus": partial(SPlus, lr=0.01, precondition_frequency=2),
    "Scion": partial(Scion, lr=0.02),
    "Scion constrained": partial(Scion, lr=0.02, constrained=True),
    "Shampoo": partial(Shampoo, lr=0.01, precondition_frequency=2),
    "SignSGD": partial(SignSGD, lr=0.01),
    "Steepest": partial(Steepest, lr=0.01),
    "Steepest diagonal rows": partial(
        Steepest, lr=0.01, norm=RowNorm(), preconditioner=Diagonal(1 / 3), momentum=HeavyBall(nesterov=True)
    ),
    "Steepest equilibrated": partial(
        Steepest, lr=0.01, preconditioner=Equilibration(3), momentum=EMA(where="after"), step=EnergyFloor()
    ),
    "Steepest spectral": partial(Steepest, lr=0.01, norm=Spectral("gram"), step=UnitLMO("spectral")),
}
WHOLE_NETWORK = ("ClippedScion",)
"""Those in which one number ties all parameters together."""

CURVED = tuple(name for name in MAKERS if any(kind in name for kind in ("KL", "SOAP", "SPlus", "Shampoo")))
"""Those that invert or rotate by second moments, which enlarges rounding while these are singular."""


def accepts(name: str, argument: str) -> bool:
    """Whether an optimizer has this argument."""
    return argument in inspect.signature(MAKERS[name].func).parameters


def decay(name: str, value: float) -> dict[str, float]:
    """``weight_decay`` for those that have it."""
    return {"weight_decay": value} if accepts(name, "weight_decay") else {}


SHAPES = [(6, 5), (5,), (6, 5), (4, 3, 2, 2), (), (2, 7)]


def parameters(
    shapes: Sequence[Sequence[int]] = SHAPES, dtype: torch.dtype = torch.float64, seed: int = 0
) -> list[Parameter]:
    """Parameters of unit-variance entries."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Parameter(torch.randn(tuple(shape), dtype=torch.float64, generator=generator).to(dtype))
        for shape in shapes
    ]


def give_gradients(params: Sequence[Tensor], seed: int, scale: float = 1.0) -> None:
    """Give each parameter a gradient that depends on nothing but the seed and its place."""
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = (scale * torch.randn(p.shape, dtype=torch.float64, generator=generator)).to(p.dtype)


def train(optimizer: Optimizer, params: Sequence[Tensor], seeds: Sequence[int], scale: float = 1.0) -> None:
    """One step for each seed."""
    for seed in seeds:
        give_gradients(params, seed, scale)
        optimizer.step()


def copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The values now."""
    return [t.detach().clone() for t in tensors]


def equal(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    """Bitwise equality of all pairs."""
    return len(a) == len(b) > 0 and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def close(a: Sequence[Tensor], b: Sequence[Tensor], tolerance: float) -> bool:
    """Whether all pairs agree relative to the largest entry."""
    pairs = list(zip(a, b, strict=True))
    return bool(pairs) and all(
        bool(((x - y).abs().max() <= tolerance * (y.abs().max() + 1e-300)).item()) for x, y in pairs
    )


def snapshot(optimizer: Optimizer) -> dict[str, Any]:
    """Everything an optimizer holds, for comparison before and after what must not change it."""
    return {
        "params": copies([p for group in optimizer.param_groups for p in group["params"]]),
        "state": [
            {k: torch.as_tensor(v).clone() for k, v in optimizer.state.get(p, {}).items()}
            for group in optimizer.param_groups
            for p in group["params"]
        ],
        # torch adds "differentiable" to the groups of every optimizer that has loaded or been copied.
        "groups": [
            {k: v for k, v in group.items() if k not in ("params", "differentiable")}
            for group in optimizer.param_groups
        ],
    }


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two snapshots agree bit for bit."""
    if not equal(a["params"], b["params"]) or a["groups"] != b["groups"]:
        return False
    return len(a["state"]) == len(b["state"]) and all(
        list(x) == list(y) and all(torch.equal(x[k], y[k]) and x[k].dtype == y[k].dtype for k in x)
        for x, y in zip(a["state"], b["state"], strict=True)
    )
