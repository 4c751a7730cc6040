"""Drive an optimizer along fixed gradients and compare whole trajectories."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

STEPS = 24
MATRICES = [(12, 12), (9, 20), (20, 9), (18, 19)]
CONV = [(10, 3, 2, 2), (4, 5, 3, 3), (6, 7, 3)]
VECTORS = [(7,), (1,), ()]


def start(shape: Sequence[int], seed: int = 0) -> Tensor:
    """A float64 weight of unit-variance entries."""
    return torch.randn(tuple(shape), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradients(shape: Sequence[int], steps: int = STEPS, seed: int = 1) -> list[Tensor]:
    """Float64 gradients with a lasting part, noise, and entries of unequal size."""
    generator = torch.Generator().manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn(tuple(shape), dtype=torch.float64, generator=generator)

    signal, size = normal(), torch.exp(0.5 * normal())
    return [size * (0.3 * signal + normal()) for _ in range(steps)]


def follow(make: Callable[..., Optimizer], w0: Tensor, grads: Sequence[Tensor], **kwargs) -> list[Tensor]:
    """The iterates of ``make([parameter], **kwargs)`` along the given gradients."""
    parameter = torch.nn.Parameter(w0.clone())
    optimizer = make([parameter], **kwargs)
    iterates = []
    for g in grads:
        parameter.grad = g.clone()
        optimizer.step()
        assert torch.equal(parameter.grad, g), "step() changed the gradient"
        iterates.append(parameter.detach().clone())
    return iterates


def descend(
    make: Callable[..., Optimizer], w0: Tensor, gradient: Callable[[Tensor], Tensor], steps: int, **kwargs
) -> list[Tensor]:
    """The iterates when the gradient depends on the weight."""
    parameter = torch.nn.Parameter(w0.clone())
    optimizer = make([parameter], **kwargs)
    iterates = []
    for _ in range(steps):
        parameter.grad = gradient(parameter.detach())
        optimizer.step()
        iterates.append(parameter.detach().clone())
    return iterates


def deviation(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest entrywise difference, relative to the largest entry of the expected iterate."""
    assert len(actual) == len(expected) > 0
    worst = 0.0
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert torch.isfinite(b).all()
        worst = max(worst, float((a - b).abs().max() / b.abs().max()))
        assert worst == worst, "not a number"
    return worst


def assert_same(actual: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float = 1e-12) -> None:
    """Same trajectory, and one that really moves."""
    assert deviation(actual, expected) <= tolerance
    assert float((expected[-1] - expected[0]).abs().max()) > 1e-3 * float(expected[0].abs().max())


def displacement(w0: Tensor, iterates: Sequence[Tensor]) -> list[Tensor]:
    """Total movement after every step."""
    return [w - w0 for w in iterates]


def state_of(make: Callable[..., Optimizer], w0: Tensor, grads: Sequence[Tensor], **kwargs) -> dict:
    """The named state of the one parameter after the last gradient."""
    parameter = torch.nn.Parameter(w0.clone())
    optimizer = make([parameter], **kwargs)
    for g in grads:
        parameter.grad = g.clone()
        optimizer.step()
    return dict(optimizer.state[parameter])
