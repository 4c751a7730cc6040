"""Clause 9: shapes, memory layouts, and gradients that are not dense real numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import Parameter

from steepest.checks.registry import NotClaimed, check, expect
from steepest.checks.subject import (
    Subject,
    all_finite,
    displacement,
    noise,
    same_bits,
    snapshot,
    state_snapshot,
)

_SHAPES: dict[str, tuple[int, ...]] = {
    "scalar": (),
    "one_element": (1,),
    "vector": (7,),
    "matrix": (20, 18),
    "row": (1, 24),
    "column": (24, 1),
    "wide": (6, 40),
    "tall": (40, 6),
    "stack_3d": (3, 20, 18),
    "conv_4d": (20, 3, 3, 3),
    "conv_5d": (4, 2, 2, 2, 2),
}


def _trains(subject: Subject, shape: tuple[int, ...]) -> None:
    params = subject.params([shape])
    optimizer = subject.build_or_unclaimed(params, f"shape {shape} is")
    start = snapshot(params)
    end = subject.run(optimizer, params, 4)
    expect(all_finite(end), f"finite weights of shape {shape} after 4 steps", "some are NaN or infinite")
    expect(
        params[0].shape == torch.Size(shape), f"shape {shape} to be kept", f"it is {tuple(params[0].shape)}"
    )
    expect(not same_bits(start, end), f"a parameter of shape {shape} to move", "it did not")


def _register(name: str, shape: tuple[int, ...]) -> None:
    text = f"A parameter of shape {shape} trains, or is refused by the constructor"
    check(f"shapes.{name}", 9, summary=text)(lambda subject: _trains(subject, shape))


for _name, _shape in _SHAPES.items():
    _register(_name, _shape)


@check("shapes.zero_element", 9, strict=True)
def zero_element(subject: Subject) -> None:
    """Parameters without elements are accepted beside others and change nothing."""
    usual = subject.shapes()[0]
    sizes: Sequence[Sequence[int]] = [(0, 5), (5, 0), usual]
    params = subject.params(sizes)
    optimizer = subject.build_or_unclaimed(params, "a zero-element parameter is")
    end = subject.run(optimizer, params, 3)
    alone = subject.params(sizes)[2:]
    expected = subject.run(
        subject.build(alone), alone, 3, gradient=lambda t, index, param: subject.gradient(t, 2, param)
    )
    gap = displacement(subject.params(sizes)[2:], end[2:], expected)
    expect(
        gap < _TOLERANCE, "a zero-element parameter to change nothing for others", f"they differ by {gap:.1e}"
    )
    expect(all_finite(end), "finite weights beside a zero-element parameter", "some are NaN or infinite")


def _layout_agrees(subject: Subject, what: str, shape: tuple[int, ...], permute: tuple[int, ...]) -> None:
    """Train in a permuted memory layout (parameter, gradient or both) and in the plain one; compare."""
    inverse = tuple(permute.index(axis) for axis in range(len(permute)))

    def relaid(value: torch.Tensor) -> torch.Tensor:
        return value.permute(permute).contiguous().permute(inverse)

    plain = subject.params([shape])
    start = snapshot(plain)
    expected = subject.run(subject.build_or_unclaimed(plain, f"shape {shape} is"), plain, 4)
    for param_relaid, grad_relaid in ((True, True), (True, False), (False, True)):
        value = relaid(start[0]) if param_relaid else start[0].clone()
        params = [Parameter(value)]
        stride = params[0].stride()

        def gradient(t: int, index: int, param: torch.Tensor, relay: bool = grad_relaid) -> torch.Tensor:
            raw = subject.gradient(t, index, param).contiguous()
            return relaid(raw) if relay else raw

        end = subject.run(subject.build(params), params, 4, gradient=gradient)
        which = " and ".join(
            name for name, chosen in (("parameter", param_relaid), ("gradient", grad_relaid)) if chosen
        )
        gap = displacement(start, end, expected)
        expect(
            gap < _TOLERANCE,
            f"a {what} {which} to train like a contiguous one",
            f"the weights differ by {gap:.1e} of the distance travelled",
            "use reshape, not view or raw memory order",
        )
        expect(
            params[0].stride() == stride, f"the strides {stride} to be kept", f"they are {params[0].stride()}"
        )


@check("shapes.noncontiguous", 9)
def noncontiguous(subject: Subject) -> None:
    """Transposed parameters and gradients give the result of contiguous ones."""
    _layout_agrees(subject, "transposed", (20, 18), (1, 0))


@check("shapes.channels_last", 9)
def channels_last(subject: Subject) -> None:
    """channels_last parameters and gradients give the result of contiguous ones."""
    _layout_agrees(subject, "channels_last", (20, 3, 3, 3), (0, 2, 3, 1))


@check("shapes.expanded_gradient", 9)
def expanded_gradient(subject: Subject) -> None:
    """A gradient with stride 0, as loss = w.sum() gives, works like a dense one."""
    shape = subject.shapes()[0]
    params, twins = subject.params([shape]), subject.params([shape])
    one = torch.ones((), device=subject.device)
    end = subject.run(
        subject.build(params), params, 3, gradient=lambda t, index, param: one.expand(param.shape)
    )
    expected = subject.run(
        subject.build(twins), twins, 3, gradient=lambda t, index, param: torch.ones_like(param)
    )
    gap = displacement(subject.params([shape]), end, expected)
    expect(gap < _TOLERANCE, "an expanded gradient to act like a dense one", f"they differ by {gap:.1e}")
    expect(one.item() == 1.0, "the memory behind the gradient to be left alone", f"it became {one.item()}")


@check("errors.sparse", 9)
def sparse_gradient(subject: Subject) -> None:
    """A sparse gradient works, or is an error that says so."""
    _with_sparse_gradient(subject)


@check("errors.sparse_changes_nothing", 9, strict=True)
def sparse_changes_nothing(subject: Subject) -> None:
    """A sparse gradient that is refused is refused before any weight or state changes."""
    params, optimizer, start, state = _with_sparse_gradient(subject)
    if optimizer is not None:
        _unchanged(start, params, state, optimizer, "sparse gradient")


def _with_sparse_gradient(subject: Subject) -> Any:
    """Step with one sparse gradient, the last; the optimizer is returned only if it refused."""
    shape = next((shape for shape in subject.shapes() if len(shape) == 2), None)
    if shape is None:
        raise NotClaimed("no 2-d parameter is accepted")
    params = subject.pair() + subject.params([shape])
    optimizer = subject.build(params)
    subject.run(optimizer, params, 2)
    start, state = snapshot(params), state_snapshot(optimizer)

    def gradient(t: int, index: int, param: torch.Tensor) -> torch.Tensor:
        dense = subject.gradient(t, index, param)
        return dense.to_sparse() if index == len(params) - 1 else dense

    try:
        with torch.sparse.check_sparse_tensor_invariants(True):
            end = subject.run(optimizer, params, 1, start=2, gradient=gradient)
    except Exception as error:
        named = "sparse" in str(error).lower()
        expect(named, "an error that says 'sparse'", f"{type(error).__name__} says: {str(error)[:120]}")
        return params, optimizer, start, state
    expected = subject.trajectory(subject.pair() + subject.params([shape]), 3)
    gap = displacement(subject.pair() + subject.params([shape]), end, expected)
    expect(gap < _TOLERANCE, "a full sparse gradient to act like the dense one", f"they differ by {gap:.1e}")
    return params, None, start, state


@check("errors.complex", 9)
def complex_parameter(subject: Subject) -> None:
    """A complex parameter works, or is a clear error before any weight moves."""
    shape = subject.shapes()[0]
    parts = [noise(shape, 3, 8), noise(shape, 4, 8)]
    odd = Parameter((0.3 * torch.complex(*parts)).to(subject.device, torch.complex64))
    params = [*subject.pair(), odd]
    start = snapshot(params)

    def gradient(t: int, index: int, param: torch.Tensor) -> torch.Tensor:
        if not param.is_complex():
            return subject.gradient(t, index, param)
        return torch.complex(noise(shape, t, 8), noise(shape, t, 9)).to(param.device, param.dtype)

    try:
        optimizer = subject.build(params)
        end = subject.run(optimizer, params, 3, gradient=gradient)
    except Exception as error:
        named = "complex" in str(error).lower()
        expect(named, "an error that says 'complex'", f"{type(error).__name__} says: {str(error)[:120]}")
        expect(same_bits(start, snapshot(params)), "the error before any weight moves", "weights had moved")
        return
    expect(end[-1].is_complex(), "a complex parameter to stay complex", f"it became {end[-1].dtype}")
    expect(bool(torch.isfinite(torch.view_as_real(end[-1])).all()), "finite complex weights", "some are not")
    expect(not same_bits(start[-1], end[-1]), "a complex parameter to move", "it did not")
    imaginary = (end[-1] - start[-1]).imag.abs().max().item()
    expect(imaginary > 0, "the imaginary part to be trained too", "it did not move")


def _unchanged(start: list, params: list, state: dict, optimizer: object, what: str) -> None:
    expect(
        same_bits(start, snapshot(params)),
        f"the error for a {what} before any weight moves",
        "weights had moved",
    )
    later = state_snapshot(optimizer)
    kept = all(same_bits(values, later.get(param)) for param, values in state.items())
    expect(kept, f"the error for a {what} before any state changes", "some state had changed")


_TOLERANCE = 2e-2
