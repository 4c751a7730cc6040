"""The parameter sets that steps are measured on, and gradients for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter

Shape = tuple[int, ...]
POOL = 2**23
"""Entries of the noise that gradients are cut from, beside those of the largest tensor."""
RANK = 8
"""Rank of the part of a gradient that stays from step to step."""


@dataclass(frozen=True)
class ParameterSet:
    """Shapes with a name.

    ``hidden`` is what matrix methods train by themselves, with the vectors between them; ``auxiliary`` are
    the embeddings and heads, which every matrix method leaves to an AdamW.
    """

    name: str
    title: str
    hidden: tuple[Shape, ...]
    auxiliary: tuple[Shape, ...] = ()

    @property
    def entries(self) -> int:
        """How many numbers the parameters hold."""
        return sum(math.prod(shape) for shape in (*self.auxiliary, *self.hidden))


@dataclass(frozen=True)
class Parameters:
    """Parameters of one optimizer; ``hidden`` and ``auxiliary`` as in :class:`ParameterSet`."""

    hidden: list[Parameter]
    auxiliary: list[Parameter]
    gradients: list[Tensor]
    """Where gradients of ``all`` are written: some optimizers take ``grad`` off their parameters."""

    @property
    def all(self) -> list[Parameter]:
        """All parameters, embedding first."""
        return [*self.auxiliary, *self.hidden]

    @property
    def matrices(self) -> list[Parameter]:
        """Hidden parameters of two or more dimensions."""
        return [p for p in self.hidden if p.ndim > 1]

    @property
    def rest(self) -> list[Parameter]:
        """Everything that is not a hidden matrix."""
        return [*self.auxiliary, *(p for p in self.hidden if p.ndim < 2)]


class Gradients:
    """Parameters of a set and a new gradient for every step, the same for every optimizer.

    A gradient is c (B + N): B of rank 8 stays, N is Gaussian noise of the same size cut from a pool at a
    place that depends on the tensor and the step. So statistics and bases move as they do in training, and
    writing a gradient costs no more than a copy. The last parameter is written first, as by a backward pass.

    Args:
        shapes: the set.
        device: where parameters live.
        size: c, the size of an entry.
    """

    def __init__(self, shapes: ParameterSet, device: str | torch.device = "cpu", size: float = 1e-3) -> None:
        self.shapes = shapes
        self.device = torch.device(device)
        self._generator = torch.Generator(self.device).manual_seed(0)
        order = (*shapes.auxiliary, *shapes.hidden)
        self._kept = [size * self._low_rank(shape) for shape in order]
        self._span = min(POOL, 4 * shapes.entries)
        self._noise = size * self._normal((self._span + max(math.prod(shape) for shape in order),))

    def parameters(self, *, flat: bool = False) -> Parameters:
        """Return new parameters, the same at every call; ``flat`` reads tensors of 3 and more dimensions
        as matrices (size(0), rest).
        """
        generator = torch.Generator(self.device).manual_seed(1)

        def make(shape: Shape) -> Parameter:
            shown = (shape[0], math.prod(shape[1:])) if flat and len(shape) > 2 else shape
            return Parameter(torch.randn(shown, generator=generator, device=self.device).mul_(0.02))

        auxiliary = [make(shape) for shape in self.shapes.auxiliary]
        hidden = [make(shape) for shape in self.shapes.hidden]
        gradients = [torch.zeros_like(p, requires_grad=False) for p in (*auxiliary, *hidden)]
        return Parameters(hidden, auxiliary, gradients)

    @torch.no_grad()
    def write(self, params: Parameters, step: int) -> None:
        """Give the parameters the gradients of a step."""
        for i, param in reversed([*enumerate(params.all)]):
            kept, grad = self._kept[i].view(-1), params.gradients[i]
            place = (step * 7_368_787 + i * 1_299_709) % self._span
            torch.add(kept, self._noise[place : place + kept.numel()], out=grad.view(-1))
            param.grad = grad

    def _low_rank(self, shape: Shape) -> Tensor:
        if len(shape) < 2:
            return self._normal(shape)
        left = self._normal((shape[0], RANK)) * torch.linspace(1.5, 0.1, RANK, device=self.device)
        return (left @ self._normal((RANK, math.prod(shape[1:])))).mul_(RANK**-0.5).reshape(shape)

    def _normal(self, shape: Shape) -> Tensor:
        return torch.randn(shape, generator=self._generator, device=self.device)


def _block(width: int) -> tuple[Shape, ...]:
    return (
        (3 * width, width),
        (width, width),
        (4 * width, width),
        (width, 4 * width),
        (width,),
        (width,),
    )


def _resnet() -> tuple[Shape, ...]:
    shapes: list[Shape] = [(64, 3, 3, 3), (64,), (64,)]
    width = 64
    for out in (64, 128, 256, 512):
        for inputs in (width, out):
            shapes += [(out, inputs, 3, 3), (out,), (out,), (out, out, 3, 3), (out,), (out,)]
            if inputs != out:
                shapes += [(out, inputs, 1, 1), (out,), (out,)]
        width = out
    return (*shapes, (10,))


def matrices(count: int, side: int) -> ParameterSet:
    """Return a set of ``count`` square matrices."""
    return ParameterSet(f"{count} x {side} x {side}", "square matrices", ((side, side),) * count)


SETS = {
    found.name: found
    for found in (
        ParameterSet(
            "gpt",
            "GPT, 29.4M parameters: 8 blocks of width 512, vocabulary 8192",
            (*_block(512) * 8, (512,)),
            ((8192, 512),),
        ),
        ParameterSet(
            "resnet", "ResNet-18 for 10 classes, 11.2M parameters in convolutions", _resnet(), ((10, 512),)
        ),
        ParameterSet(
            "small",
            "500 small tensors, 0.4M parameters",
            ((32, 32), (32,), (32, 64), (64,)) * 125,
        ),
        ParameterSet("block", "One block of the GPT, 3.1M parameters", _block(512)),
    )
}
