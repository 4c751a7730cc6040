"""The polar factor `msign(X) = U V^T`: one entry point for every method."""

from __future__ import annotations

import torch
from torch import Tensor

from steepest.linalg.exact import polar_by_decomposition
from steepest.linalg.newton_schulz import iterate, iterate_gram
from steepest.linalg.plan import PolarPlan, check_polar, polar_plan
from steepest.linalg.precision import at_least_float32
from steepest.linalg.scaling import unit_frobenius


@torch.no_grad()
def polar(
    x: Tensor,
    method: str = "auto",
    steps: int = 5,
    *,
    error: float | None = None,
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """Approximate polar factor `msign(X) = U V^T` of `X = U S V^T`, for each matrix of a batch.

    | method | what it computes | bound on s | range of the result |
    |---|---|---|---|
    | `auto` | `newton_schulz` in its cheapest form, or what `error` asks for | 2e-3 | 0.68 to 1.21 |
    | `newton_schulz` | one quintic, `steps` times | 2e-3 of the Frobenius norm | 0.68 to 1.21 |
    | `polar_express` | an optimal quintic for each step | 1e-3 of the Frobenius norm | 0.85 to 1.15 |
    | `minimax` | the same, in its cheapest form | 2e-3 of the Frobenius norm | 0.975 to 1.025 |
    | `gram` | `newton_schulz` on the Gram matrix | as `newton_schulz` | |
    | `gram_polar_express` | `polar_express` on the Gram matrix | as `polar_express` | |
    | `svd` | the factor itself | `4 sqrt(max(m, n)) eps` of the largest s | 1 |

    A singular value s above the bound ends in the range, with five steps in float32 or float64; bfloat16
    widens the range by 0.05 on either side. Below the bound s is multiplied by up to 485 (970 for
    `polar_express`, 714 for `minimax`) and never ends above the range: no matrix makes an iteration blow up,
    but a direction weaker than 1e-3 of the norm stays weak, and lifted rounding (in bfloat16: up to 0.7)
    stands where s was zero. Take `svd` where every direction counts; it maps values below its bound to zero,
    which gives the partial isometry of a rank-deficient matrix, and its error is about eps times the
    condition number.

    `auto` and `minimax` choose between two forms of the same polynomials, equal to rounding: the direct one,
    and in float32, where the long side exceeds 1.5 times the short one, the Gram form, which works on the
    short side. Where bfloat16 products are native the direct form in bfloat16 is the faster. The rule is a
    table (:mod:`steepest.linalg.plan`), nothing is timed. `minimax` with 4, 5, 6 steps leaves an error
    of 0.33, 0.025, 2e-5, in float32 or better: it has no bfloat16 form.

    `gram` works on the short side from the same ratio on and is `newton_schulz` itself below. It computes in
    float32 or better, so hardware with native bfloat16 products gains nothing from it. Five steps in float32
    differ from `newton_schulz` by at most 5e-3 in the spectral norm (`gram_polar_express` from
    `polar_express` by 1.5e-2).

    Zero matrices give zero, empty ones an empty result. The scale of X does not matter, from subnormal up to
    the largest entries of the dtype. A NaN or an infinity gives NaN in its own matrix only. Iterations never
    wait for the device; `svd` does. Large stacks are computed in parts, so that buffers stay bounded. The
    result is not differentiable.

    Args:
        x: `(..., m, n)`, real floating point. Not changed.
        method: one of `POLAR_METHODS`.
        steps: number of polynomials. More of them lift smaller values, rounding errors included, and come
            closer to 1 with `minimax` alone. `polar_express` repeats its last one after the fifth and is
            poor with fewer than five. `svd` ignores it, and so does `auto` with an `error`.
        error: the largest max |s - 1| to allow for singular values of at least 2e-3 of the Frobenius norm, in
            (0, 1), with `method="auto"`: the fewest steps of `minimax` that keep it, rounding included, in
            bfloat16 where that is native and still keeps it; `svd` where no iteration does (below 5e-6 in
            float32 and 2e-12 in float64). None: five Newton-Schulz steps, whose error is 0.32.
        compute_dtype: dtype of the matrix products of an iteration. None: float64 for float64 input; else
            float32 for the Gram methods, and for the others bfloat16 where it is native (CUDA from capability
            8, CPUs with AVX512-BF16 or AMX) and float32 elsewhere. `svd` computes in float64.

    Returns:
        Tensor with the shape, dtype and device of `x`.

    Raises:
        ValueError: unknown `method`, `steps` < 1, an `error` outside (0, 1) or beside another method than
            `auto`, fewer than two dimensions, or a `compute_dtype` that is not floating point, or too coarse
            for `minimax` or for the `error`.
        TypeError: `x` is not real floating point.

    Sources: K. Jordan et al., "Muon", 2024 (newton_schulz); N. Amsel et al., "The Polar Express", arXiv
    2505.16932 (polar_express, and the construction of minimax); the Gram form follows from Q(X X^T) X.

    Example:
        >>> import torch
        >>> from steepest.linalg import polar
        >>> u = polar(torch.tensor([[3.0, 0.0], [0.0, 4e-3]]), method="svd")
        >>> u.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        >>> u = polar(torch.tensor([[3.0, 0.0], [0.0, 0.1]]), error=0.03)
        >>> bool(((u.diagonal() - 1).abs() < 0.03).all())
        True
    """
    check_polar(method, steps, error=error, compute_dtype=compute_dtype)
    if not x.is_floating_point():
        raise TypeError(f"x has dtype {x.dtype}: must be a real floating point tensor")
    if x.ndim < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}: must have at least two dimensions")
    if x.numel() == 0:
        return torch.zeros_like(x)
    plan = polar_plan(x, method, steps, error=error, compute_dtype=compute_dtype)
    # A single matrix is multiplied by mm, which needs no batch descriptors and is the faster path.
    if x.shape[:-2].numel() == 1:
        return _compute(x.reshape(x.shape[-2:]), plan).reshape(x.shape)
    stack = x.reshape(-1, *x.shape[-2:])
    if plan.chunk >= len(stack):
        return _compute(stack, plan).reshape(x.shape)
    result = torch.empty_like(stack, memory_format=torch.contiguous_format)
    for part, target in zip(stack.split(plan.chunk), result.split(plan.chunk), strict=True):
        _compute(part, plan, target)
    return result.reshape(x.shape)


def _compute(x: Tensor, plan: PolarPlan, out: Tensor | None = None) -> Tensor:
    """Follow the plan for one matrix (m, n) or a stack, into `out` if there is one."""
    work = x.to(at_least_float32(x.dtype))
    target = out if out is not None and out.dtype == plan.dtype else None
    if plan.exact:
        found = polar_by_decomposition(work)
    else:
        work = unit_frobenius(work, plan.margin).to(plan.dtype)
        if plan.on_gram:
            found = iterate_gram(work, plan.schedule, target, rounding=plan.gram_rounding)
        else:
            found = iterate(work, plan.schedule, target)
    if out is None:
        return found.to(x.dtype)
    return out if found is target else out.copy_(found)


@torch.no_grad()
def orthogonality_error(u: Tensor, rank: int | None = None) -> Tensor:
    """How far each matrix is from a partial isometry: max |s - 1| over its non-zero singular values.

    Args:
        u: `(..., m, n)`, real floating point.
        rank: count the `rank` largest singular values. None: those above `max(m, n) eps` times the largest,
            with eps of the dtype of `u`; give the rank where rounding is coarser than that, for example after
            an iteration in bfloat16.

    Returns:
        float64 tensor of shape `(...)`; zero for a zero or an empty matrix.

    Example:
        >>> import torch
        >>> from steepest.linalg import orthogonality_error
        >>> orthogonality_error(torch.diag(torch.tensor([1.0, 0.75, 0.0]))).item()
        0.25
    """
    if u.numel() == 0:
        return u.new_zeros(u.shape[:-2], dtype=torch.float64)
    s = torch.linalg.svdvals(u.double())
    if rank is None:
        counted = s > max(u.shape[-2:]) * torch.finfo(u.dtype).eps * s[..., :1]
    else:
        counted = (torch.arange(s.shape[-1], device=u.device) < rank) & (s[..., :1] > 0)
    return torch.where(counted, (s - 1).abs(), 0).amax(-1)
