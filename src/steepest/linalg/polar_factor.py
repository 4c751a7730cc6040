"""The polar factor `msign(X) = U V^T`: one entry point for every method."""

import difflib

import torch
from torch import Tensor

from steepest.linalg.exact import polar_by_decomposition
from steepest.linalg.newton_schulz import (
    POLAR_EXPRESS_MARGIN,
    iterate,
    iterate_gram,
    newton_schulz_schedule,
    polar_express_schedule,
)
from steepest.linalg.precision import at_least_float32, iteration_dtype
from steepest.linalg.scaling import unit_frobenius

# name: (polynomials, safety factor on the Frobenius norm, on the Gram matrix)
_ITERATIONS = {
    "newton_schulz": (newton_schulz_schedule, 1.0, False),
    "polar_express": (polar_express_schedule, POLAR_EXPRESS_MARGIN, False),
    "gram": (newton_schulz_schedule, 1.0, True),
    "gram_polar_express": (polar_express_schedule, POLAR_EXPRESS_MARGIN, True),
}
POLAR_METHODS = (*_ITERATIONS, "svd")


def check_polar(method: str = "newton_schulz", steps: int = 5) -> None:
    """Raise `ValueError` for an unknown `method` or `steps` < 1, as `polar` does, without computing."""
    if method not in POLAR_METHODS:
        close = difflib.get_close_matches(str(method), POLAR_METHODS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"method={method!r} is unknown: must be one of {', '.join(POLAR_METHODS)}{hint}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps={steps!r} is out of range: must be an integer >= 1")


@torch.no_grad()
def polar(
    x: Tensor,
    method: str = "newton_schulz",
    steps: int = 5,
    *,
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """Approximate polar factor `msign(X) = U V^T` of `X = U S V^T`, for each matrix of a batch.

    | method | what it computes | bound on s | range of the result |
    |---|---|---|---|
    | `newton_schulz` | one quintic, `steps` times | 2e-3 of the Frobenius norm | 0.68 to 1.21 |
    | `polar_express` | an optimal quintic for each step | 1e-3 of the Frobenius norm | 0.85 to 1.15 |
    | `gram` | `newton_schulz` on the Gram matrix | as `newton_schulz` | |
    | `gram_polar_express` | `polar_express` on the Gram matrix | as `polar_express` | |
    | `svd` | the factor itself | `4 sqrt(max(m, n)) eps` of the largest s | 1 |

    A singular value s above the bound ends in the range, with five steps in float32 or float64; bfloat16
    widens the range by 0.05 on either side. Below the bound s is multiplied by up to 485 (970 for
    `polar_express`) and never ends above the range: no matrix makes an iteration blow up, but a direction
    weaker than 1e-3 of the norm stays weak, and lifted rounding (in bfloat16: up to 0.7) stands where s was
    zero. Take `svd` where every direction counts; it maps values below its bound to zero, which gives the
    partial isometry of a rank-deficient matrix, and its error is about eps times the condition number.

    `gram` works on the short side, needs fewer operations once the long side exceeds 1.5 times the short one
    (1.4 times faster at 1 : 3 and 1.8 times at 1 : 4, float32 on a CPU) and is `newton_schulz` itself below
    that. It computes in float32 or better, so hardware with native bfloat16 products gains nothing from it.
    Five steps in float32 differ from `newton_schulz` by at most 5e-3 in the spectral norm
    (`gram_polar_express` from `polar_express` by 1.5e-2).

    Zero matrices give zero, empty ones an empty result. The scale of X does not matter, from subnormal up to
    the largest entries of the dtype. A NaN or an infinity gives NaN in its own matrix only. Iterations never
    wait for the device; `svd` does. The result is not differentiable.

    Args:
        x: `(..., m, n)`, real floating point. Not changed.
        method: one of `POLAR_METHODS`.
        steps: number of polynomials. More of them lift smaller values, rounding errors included, but come no
            closer to 1. `polar_express` repeats its last one after the fifth and is poor with fewer than
            five. `svd` ignores it.
        compute_dtype: dtype of the matrix products of an iteration. None: float64 for float64 input; else
            float32 for the Gram methods, and for the others bfloat16 where it is native (CUDA from capability
            8, CPUs with AVX512-BF16 or AMX) and float32 elsewhere. `svd` computes in float64.

    Returns:
        Tensor with the shape, dtype and device of `x`.

    Raises:
        ValueError: unknown `method`, `steps` < 1, fewer than two dimensions, or a `compute_dtype` that is not
            floating point.
        TypeError: `x` is not real floating point.

    Sources: K. Jordan et al., "Muon", 2024 (newton_schulz); N. Amsel et al., "The Polar Express", arXiv
    2505.16932; the Gram form follows from Q(X X^T) X.

    Example:
        >>> import torch
        >>> from steepest.linalg import polar
        >>> u = polar(torch.tensor([[3.0, 0.0], [0.0, 4e-3]]), method="svd")
        >>> u.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    check_polar(method, steps)
    if not x.is_floating_point():
        raise TypeError(f"x has dtype {x.dtype}: must be a real floating point tensor")
    if x.ndim < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}: must have at least two dimensions")
    if compute_dtype is not None and not compute_dtype.is_floating_point:
        raise ValueError(f"compute_dtype={compute_dtype} is not a floating point dtype")
    if x.numel() == 0:
        return torch.zeros_like(x)
    # A single matrix is multiplied by mm, which needs no batch descriptors and is the faster path.
    single = x.shape[:-2].numel() == 1
    work = x.reshape(x.shape[-2:] if single else (-1, *x.shape[-2:])).to(at_least_float32(x.dtype))
    if method == "svd":
        return polar_by_decomposition(work).to(x.dtype).reshape(x.shape)
    schedule, margin, on_gram = _ITERATIONS[method]
    # Below this ratio of the sides the Gram form needs more operations, whatever the number of steps.
    on_gram = on_gram and 2 * max(x.shape[-2:]) > 3 * min(x.shape[-2:])
    if compute_dtype is None:
        compute_dtype = at_least_float32(x.dtype) if on_gram else iteration_dtype(x.dtype, x.device)
    work = unit_frobenius(work, margin).to(compute_dtype)
    work = (iterate_gram if on_gram else iterate)(work, schedule(steps))
    return work.to(x.dtype).reshape(x.shape)


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
