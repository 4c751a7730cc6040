"""Every public optimizer on gradients and shapes that break optimizers, on a convex quadratic, and its state.

One layer is trained whose rows of input are the unit vectors, so that its outputs are the entries of its
weight: any gradient can be had by backpropagation, as K-FAC's hooks need.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import steepest
from steepest import catalogue

METHODS = catalogue.methods()
ARGUMENTS: dict[str, dict[str, Any]] = {
    "AdamSANIA": {"lr": 0.01},
    "ClippedScion": {"lr": 0.01, "rho": 1.0},
    "KFAC": {"lr": 0.01, "loss_average": None, "kl_clip": None},
    "NormalizedSGD": {"lr": 0.01},
    "Scion": {"lr": 0.01},
    "Steepest": {"lr": 0.01},
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "AdamSANIA by the loss": ("AdamSANIA", {"lr": 0.5, "polyak": True}),
    "KFAC factored, clipped": (
        "KFAC",
        {"lr": 0.01, "loss_average": None, "factored_damping": True, "kl_clip": 1e-3},
    ),
    "OneSidedShampoo grafted": ("OneSidedShampoo", {"side": "smaller", "grafting": "adam"}),
    "Scion constrained": ("Scion", {"lr": 0.01, "constrained": True}),
    "Shampoo averaged": ("Shampoo", {"betas": (0.9, 0.95), "grafting": "rmsprop"}),
    "SOAP with the current gradient": ("SOAP", {"include_current": True}),
    "Steepest, spectral": (
        "Steepest",
        {
            "lr": 0.01,
            "norm": steepest.Spectral("svd"),
            "preconditioner": steepest.Diagonal(power=1),
            "step": steepest.UnitLMO(),
        },
    ),
}
SUBJECTS = {name: (name, ARGUMENTS.get(name, {})) for name in METHODS} | VARIANTS
SCALE_FREE = ("Muon", "NormalizedSGD", "SPlus", "Scion", "SignSGD")
"""Whose step is the same for all multiples of the gradients."""

STEPS = 7
MATRIX = (4, 6)


class Trial:
    """One layer, an extra vector, and an optimizer of both."""

    def __init__(
        self, subject: str, shape: Sequence[int], dtype: torch.dtype = torch.float32, **options: Any
    ):
        name, arguments = SUBJECTS[subject]
        self.layer = layer_of(shape).to(dtype)
        self.vector = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=dtype))
        model = nn.ModuleDict({"layer": self.layer})
        model.register_parameter("vector", self.vector)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.weight.copy_(torch.randn(tuple(shape), generator=generator, dtype=torch.float64))
        options = {**arguments, **{k: v for k, v in options.items() if accepts(subject, k)}}
        build: Any = METHODS[name]
        self.optimizer = build(model if name == "KFAC" else list(model.parameters()), **options)
        inputs = self.weight[0].numel()
        self.units = torch.eye(inputs, dtype=dtype).reshape(inputs, *self.weight.shape[1:])

    @property
    def weight(self) -> nn.Parameter:
        weight = self.layer.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def entries(self) -> Tensor:
        """The weight as the layer's outputs, (m, n)."""
        return self.layer(self.units).reshape(len(self.units), -1).mT

    def follow(self, gradients: Sequence[Tensor]) -> Tensor:
        """Step along given gradients of the weight; return its movement in float64."""
        start = self.weight.detach().double().clone()
        for gradient in gradients:
            gradient = gradient.to(self.weight.dtype)

            def closure(gradient: Tensor = gradient) -> Tensor:
                self.optimizer.zero_grad()
                (self.entries() * gradient.reshape(self.entries().shape)).sum().backward()
                assert self.weight.grad is not None
                assert torch.equal(self.weight.grad, gradient)
                self.vector.grad = torch.full_like(self.vector, float(gradient.flatten()[0]))
                return gradient.norm().detach()  # not the linear loss, which may be negative: for Polyak

            self.optimizer.step(closure)
            assert torch.isfinite(self.weight).all()
            assert torch.isfinite(self.vector).all()
        assert not self.optimizer.state[self.weight].get("fallbacks", 0), "an eigendecomposition failed"
        return self.weight.detach().double() - start

    def descend(self, steps: int) -> list[float]:
        """Losses on a diagonal quadratic with curvatures from 0.3 to 3, before each step and at the end."""
        m, n = self.entries().shape
        generator = torch.Generator().manual_seed(1)
        curvature = 0.3 * 10 ** torch.rand(m, n, generator=generator, dtype=torch.float64)
        target = torch.randn(m, n, generator=generator, dtype=torch.float64)
        curvature, target = curvature.to(self.weight.dtype), target.to(self.weight.dtype)

        def loss() -> Tensor:
            matrix = 0.5 * (curvature * (self.entries() - target).square()).sum()
            return matrix + 0.5 * (curvature[0, :3] * self.vector.square()).sum()

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            value = loss()
            value.backward()
            return value

        losses = [float(self.optimizer.step(closure).detach()) for _ in range(steps)]
        return [*losses, float(loss().detach())]


def layer_of(shape: Sequence[int]) -> nn.Module:
    if len(shape) == 2:
        return nn.Linear(shape[1], shape[0], bias=False)
    return nn.Conv2d(shape[1], shape[0], (shape[2], shape[3]), bias=False)


def accepts(subject: str, argument: str) -> bool:
    return argument in inspect.signature(METHODS[SUBJECTS[subject][0]]).parameters


def noise(shape: Sequence[int], steps: int = STEPS, seed: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(tuple(shape), generator=generator, dtype=torch.float64) for _ in range(steps)]


def rank_one() -> list[Tensor]:
    left, right = noise((MATRIX[0], 1), 1)[0], noise((1, MATRIX[1]), 1, seed=3)[0]
    return [float(size) * left @ right for size in noise((), STEPS)]


DEGENERATE: dict[str, Callable[[], list[Tensor]]] = {
    "rank one": rank_one,
    "rank one, other every time": lambda: [g[:, :1] @ g[:1] for g in noise(MATRIX)],
    "all entries the same": lambda: [torch.ones(MATRIX, dtype=torch.float64)] * STEPS,
    "one entry": lambda: [g * (torch.arange(24).reshape(MATRIX) == 7) for g in noise(MATRIX)],
    "the same every time": lambda: noise(MATRIX, 1) * STEPS,
    "alternating": lambda: [(-1) ** t * g for t, g in enumerate(noise(MATRIX, 1) * STEPS)],
}

often: dict[str, Any] = {"precondition_frequency": 2}


@pytest.mark.parametrize("gradients", DEGENERATE)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_degenerate_gradients(subject, gradients):
    assert Trial(subject, MATRIX, **often).follow(DEGENERATE[gradients]()).any()


@pytest.mark.parametrize("subject", SUBJECTS)
def test_zeros_for_long_then_signal(subject):
    trial = Trial(subject, MATRIX, weight_decay=0.0, **often)
    still = trial.follow([torch.zeros(MATRIX)] * 100)
    if subject != "Scion constrained":  # shrinks the weight whatever the gradient
        assert not still.any()
    assert trial.follow(noise(MATRIX, 3)).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [2.0**-67, 2.0**67])  # 7e-21 and 1.5e20, exactly
@pytest.mark.parametrize("subject", SUBJECTS)
def test_gradients_of_extreme_size(subject, scale, dtype):
    scaled = Trial(subject, MATRIX, dtype, weight_decay=0.0, **often).follow(
        [scale * g for g in noise(MATRIX)]
    )
    if subject in SCALE_FREE:
        plain = Trial(subject, MATRIX, dtype, weight_decay=0.0, **often).follow(noise(MATRIX))
        assert float((scaled - plain).norm() / plain.norm()) < 1e-6


@pytest.mark.parametrize("scales", [(1e20, 1.0), (1e-20, 1.0), (1.0, 1e20), (1.0, 1e-20)])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_gradients_that_change_size(subject, scales):
    first, second = scales
    half = noise(MATRIX, STEPS // 2)
    Trial(subject, MATRIX, **often).follow([first * g for g in half] + [second * g for g in half])


@pytest.mark.parametrize("shape", [(1, 6), (6, 1), (1, 1), (5, 5), (4, 3, 2, 2), (1, 1, 3, 3)])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_shapes(subject, shape):
    assert Trial(subject, shape, **often).follow(noise(shape)).any()


@pytest.mark.parametrize("shape", [MATRIX, (4, 3, 2, 2)])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_bfloat16_parameters(subject, shape):
    trial = Trial(subject, shape, torch.bfloat16, lr=0.05, **often)  # a smaller one rounds away
    assert trial.follow(noise(shape)).any()
    assert trial.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(7, 5), (7, 2), (2, 7), (4, 3, 2, 2)])
@pytest.mark.parametrize("subject", [s for s in SUBJECTS if accepts(s, "max_precondition_dim")])
def test_sides_above_the_limit(subject, shape):
    assert Trial(subject, shape, max_precondition_dim=3, **often).follow(noise(shape)).any()


FIRST_STEP, DESCENT_STEPS = 0.02, 20
"""The rule for every lr: the first update that moves is a fiftieth of the way to the minimum."""

WITHOUT_THAT_LR = {
    "KFAC factored, clipped": "kl_clip fixes the length of its first step",
    "Scion constrained": "shrinks the weight towards a ball that need not hold the minimum",
}


def fresh(subject: str, shape: Sequence[int], dtype: torch.dtype, lr: float) -> Trial:
    """Without stale roots: Shampoo's multiply directions they have never seen by eps^(-1/4) or eps^(-1/2)."""
    return Trial(subject, shape, dtype, lr=lr, weight_decay=0.0, precondition_frequency=1)


def first_update(subject: str, shape: Sequence[int], dtype: torch.dtype, lr: float) -> float:
    trial = fresh(subject, shape, dtype, lr)
    start = trial.weight.detach().clone()
    for _ in range(2):  # SOAP and KL-Shampoo spend their first call on statistics
        trial.descend(1)
        if moved := float((trial.weight.detach() - start).norm()):
            return moved
    raise AssertionError(f"{subject} does not move")


def lr_by_first_update(subject: str, shape: Sequence[int], dtype: torch.dtype) -> float:
    way = math.sqrt(2 * math.prod(shape))  # start and minimum are independent with entries of variance one
    lr = 0.01
    for _ in range(6):  # at once for steps in proportion to lr; MADGRAD's grow like lr^(2/3)
        factor = FIRST_STEP * way / first_update(subject, shape, dtype, lr)
        lr *= factor
        if 0.9 < factor < 1.1:
            return lr
    raise AssertionError(f"{subject} has no lr for a first update of {FIRST_STEP} times the way")


@pytest.mark.parametrize(("dtype", "shape"), [(torch.float64, MATRIX), (torch.float32, (4, 3, 2, 2))])
@pytest.mark.parametrize("subject", [s for s in SUBJECTS if s not in WITHOUT_THAT_LR])
def test_descends_on_a_convex_quadratic(subject, dtype, shape):
    lr = lr_by_first_update(subject, shape, dtype)
    losses = fresh(subject, shape, dtype, lr).descend(DESCENT_STEPS)
    assert max(losses) == losses[0]
    assert losses[-1] < 0.98 * losses[0]


Bytes = Callable[[int, int], int]
KRONECKER = "8 m^2 + 8 n^2"
STATE: dict[str, tuple[str, Bytes]] = {
    "ANDI": ("4 bytes per", lambda m, n: 4 * m * n),
    "Adagrad": ("4 bytes per", lambda m, n: 4 * m * n),
    "Adam": ("``step``: 8 bytes per", lambda m, n: 8 * m * n + 4),
    "AdamSANIA": ("``step``: 8 bytes per", lambda m, n: 8 * m * n + 4),
    "AdamW": ("``step``: 8 bytes per", lambda m, n: 8 * m * n + 4),
    "ClippedScion": ("4 bytes per", lambda m, n: 4 * m * n),
    "KFAC": (
        "``step``: 4 + 8 (m/n + n/m) bytes per",
        lambda m, n: 4 * m * n + 8 * m * m + 8 * n * n + 4 * m + 4 * n + 16,
    ),
    "KLSOAP": (
        f"8 mn + {KRONECKER} + 8 m + 8 n + 24 bytes for",
        lambda m, n: 8 * m * n + 8 * m * m + 8 * n * n + 8 * m + 8 * n + 24,
    ),
    "KLShampoo": (
        f"4 mn + {KRONECKER} + 8 m + 8 n + 20 bytes for",
        lambda m, n: 4 * m * n + 8 * m * m + 8 * n * n + 8 * m + 8 * n + 20,
    ),
    "MADGRAD": ("``step``: 12 bytes per", lambda m, n: 12 * m * n + 4),
    "MuAdam": ("``step``: 8 bytes per", lambda m, n: 8 * m * n + 4),
    "MuAdamSANIA": ("``step``: 8 bytes per", lambda m, n: 8 * m * n + 4),
    "Muon": ("4 bytes per", lambda m, n: 4 * m * n),
    "NormalizedSGD": ("4 bytes per", lambda m, n: 4 * m * n),
    "OneSidedShampoo": ("4 mn + 8 d^2 + 16 bytes for", lambda m, n: 4 * m * n + 8 * m * m + 16),
    "SOAP": (f"8 mn + {KRONECKER} + 24 bytes for", lambda m, n: 8 * m * n + 8 * m * m + 8 * n * n + 24),
    "SPlus": (f"8 mn + {KRONECKER} + 20 bytes for", lambda m, n: 8 * m * n + 8 * m * m + 8 * n * n + 20),
    "Scion": ("4 bytes per", lambda m, n: 4 * m * n),
    "Shampoo": (f"4 mn + {KRONECKER} + 20 bytes for", lambda m, n: 4 * m * n + 8 * m * m + 8 * n * n + 20),
    "SignSGD": ("4 bytes per", lambda m, n: 4 * m * n),
    "Steepest": ("What the parts keep", lambda m, n: 0),
}
"""What the State section says of a float32 m x n matrix, and the bytes counted with the named scalars."""


def test_the_table_of_states_is_complete():
    assert set(STATE) == set(METHODS)


def bytes_of_state(trial: Trial, param: Tensor) -> int:
    return sum(value.numel() * value.element_size() for value in trial.optimizer.state[param].values())


@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 2, 2)])
@pytest.mark.parametrize("name", METHODS)
def test_bytes_of_state_are_those_of_the_docstring(name, shape):
    told, formula = STATE[name]
    assert told in " ".join(catalogue.sections(METHODS[name])["State"].split())
    trial = Trial(name, shape)
    trial.follow(noise(shape, 3))
    assert bytes_of_state(trial, trial.weight) == formula(shape[0], math.prod(shape[1:]))


@pytest.mark.parametrize(
    ("name", "options", "told", "formula"),
    [
        ("ANDI", {"momentum_init": "gradient"}, "(and ``step`` for", lambda m, n: 4 * m * n + 4),
        ("AdamSANIA", {"polyak": True}, "Half of that with ``polyak``", lambda m, n: 4 * m * n),
        (
            "OneSidedShampoo",
            {"grafting": "adam", "side": "right"},
            "4 mn + 4 more with the grafts",
            lambda m, n: 8 * m * n + 8 * n * n + 20,
        ),
        (
            "OneSidedShampoo",
            {"max_precondition_dim": 3},
            "p blocks of length r, which hold p (8 r^2 + 4) bytes",
            lambda m, n: 4 * m * n + 12 + math.ceil(m / 3) * (8 * 9 + 4),
        ),
        (
            "SOAP",
            {"max_precondition_dim": 5},
            "has none of its four",
            lambda m, n: 8 * m * n + 8 * m * m + 20,
        ),
        (
            "Shampoo",
            {"grafting": "rmsprop"},
            "4 mn + 4 more with the grafts",
            lambda m, n: 8 * m * n + 8 * m * m + 8 * n * n + 24,
        ),
        ("Shampoo", {"grafting": "sgd"}, "", lambda m, n: 4 * m * n + 8 * m * m + 8 * n * n + 20),
        (
            "Shampoo",
            {"max_precondition_dim": 3},
            "p blocks of r x c hold p (8 r^2 + 8 c^2 + 8) bytes",
            lambda m, n: 4 * m * n + 12 + math.ceil(m / 3) * math.ceil(n / 3) * (8 * 9 + 8 * 9 + 8),
        ),
    ],
)
def test_bytes_of_state_with_options(name, options, told, formula):
    assert told in " ".join(catalogue.sections(METHODS[name])["State"].split())
    trial = Trial(name, (5, 7), **options)
    trial.follow(noise((5, 7), 3))
    assert bytes_of_state(trial, trial.weight) == formula(5, 7)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("Muon", lambda n: 8 * n + 4),  # AdamW's 8 for the auxiliary ones
        ("SPlus", lambda n: 8 * n + 4),
        ("SOAP", lambda n: 8 * n + 4),
        ("Shampoo", lambda n: 4 * n + 8 * n * n + 16),
    ],
)
def test_bytes_of_state_of_a_vector(name, formula):
    trial = Trial(name, MATRIX)
    trial.follow(noise(MATRIX, 3))
    assert bytes_of_state(trial, trial.vector) == formula(3)
