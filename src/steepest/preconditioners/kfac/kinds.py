"""Kinds of layers K-FAC knows: what a row of input and a row of output gradient is in each of them.

Every kind reads its layer as y = W [x; 1] applied to many rows. All positions of a row-wise layer, a
convolution or a sequence count as rows of their own (K-FAC-expand).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steepest.preconditioners.kfac.statistics import second_moment


class Inputs(NamedTuple):
    """What one call says of a layer's input."""

    total: Tensor
    """Sum over rows of x x^T, (n, n); for embeddings the count of every index, (n,)."""
    rows: Tensor | int
    """How many rows the sum has."""
    used: Tensor | None = None
    """Bool per row: whether the weight took part in it. None: all."""


class Kind(ABC):
    """One kind of layer. All sums are in float32, or float64 for float64 rows."""

    module: ClassVar[type[nn.Module]]
    diagonal_input: ClassVar[bool] = False
    """Whether inputs are one-hot, so that their covariance is diagonal, and the weight is stored in x out."""

    def takes(self, module: Any) -> bool:
        """Return whether this module computes what its class computes, in a form K-FAC can follow."""
        return type(module).forward is self.module.forward

    @abstractmethod
    def inputs(self, module: Any, x: Tensor, ones: bool) -> Inputs:
        """Return the sums for one call; ``ones`` appends an input of 1 for the bias."""

    @abstractmethod
    def output_rows(self, module: Any, grad: Tensor) -> Tensor:
        """Return the gradient of the output as rows (R, m)."""

    @abstractmethod
    def examples(self, module: Any, x: Tensor, sequence: bool) -> int:
        """Return how many examples a call holds: the leading size, or with ``sequence`` all positions."""


class LinearKind(Kind):
    """``nn.Linear``: rows are all positions but the last dimension."""

    module = nn.Linear

    def inputs(self, module: Any, x: Tensor, ones: bool) -> Inputs:
        """Return the sums over all positions."""
        rows = x.reshape(-1, x.shape[-1])
        return Inputs(second_moment(rows, ones), len(rows))

    def output_rows(self, module: Any, grad: Tensor) -> Tensor:
        """Return one row per position."""
        return grad.reshape(-1, grad.shape[-1])

    def examples(self, module: Any, x: Tensor, sequence: bool) -> int:
        """Return the leading size, or the number of positions."""
        return x.shape[:-1].numel() if sequence or x.ndim == 1 else x.shape[0]


class Conv2dKind(Kind):
    """``nn.Conv2d`` with ``groups=1``: rows are the patches under the kernel, one per output pixel."""

    module = nn.Conv2d

    def takes(self, module: Any) -> bool:
        """Return False for grouped convolutions, whose weight is several matrices."""
        return super().takes(module) and module.groups == 1

    def inputs(self, module: Any, x: Tensor, ones: bool) -> Inputs:
        """Return the sums over all patches of all images."""
        x = x if x.ndim == 4 else x[None]
        x = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        x = F.pad(x, _padding(module), mode=mode)
        patches = F.unfold(x, module.kernel_size, module.dilation, stride=module.stride)
        rows = patches.transpose(1, 2).reshape(-1, patches.shape[1])
        return Inputs(second_moment(rows, ones), len(rows))

    def output_rows(self, module: Any, grad: Tensor) -> Tensor:
        """Return one row per output pixel."""
        return grad.movedim(-3, -1).reshape(-1, grad.shape[-3])

    def examples(self, module: Any, x: Tensor, sequence: bool) -> int:
        """Return the number of images: a loss is not an average over pixels of a hidden layer."""
        return x.shape[0] if x.ndim == 4 else 1


class EmbeddingKind(Kind):
    """``nn.Embedding``: inputs are one-hot, so that their covariance is the frequency of every index.

    Positions that hold ``padding_idx`` do not use the weight and are left out.
    """

    module = nn.Embedding
    diagonal_input = True

    def takes(self, module: Any) -> bool:
        """Return False for ``sparse`` gradients and for gradients rescaled by frequency."""
        return super().takes(module) and not (module.sparse or module.scale_grad_by_freq)

    def inputs(self, module: Any, x: Tensor, ones: bool) -> Inputs:
        """Return how often every index occurs."""
        index = x.reshape(-1)
        used = None if module.padding_idx is None else index != module.padding_idx
        dtype = torch.float64 if module.weight.dtype == torch.float64 else torch.float32
        weights = torch.ones(index.shape, dtype=dtype, device=x.device) if used is None else used.to(dtype)
        counts = torch.zeros(module.num_embeddings, dtype=dtype, device=x.device)
        return Inputs(counts.index_add_(0, index, weights), weights.sum(), used)

    def output_rows(self, module: Any, grad: Tensor) -> Tensor:
        """Return one row per position."""
        return grad.reshape(-1, grad.shape[-1])

    def examples(self, module: Any, x: Tensor, sequence: bool) -> int:
        """Return the leading size, or the number of positions."""
        return x.numel() if sequence or x.ndim == 0 else x.shape[0]


KINDS = (LinearKind(), Conv2dKind(), EmbeddingKind())


def kind_of(module: nn.Module) -> Kind | None:
    """Return the kind of a module with a weight of its own, or None if K-FAC does not know it."""
    if not isinstance(module._parameters.get("weight"), nn.Parameter):
        return None
    return next((k for k in KINDS if isinstance(module, k.module) and k.takes(module)), None)


def _padding(module: Any) -> list[int]:
    """Return the padding of a convolution as ``F.pad`` takes it: last dimension first, both ends."""
    if module.padding == "valid":
        return [0, 0, 0, 0]
    pads: list[int] = []
    for i in (1, 0):
        if module.padding == "same":
            total = module.dilation[i] * (module.kernel_size[i] - 1)
            pads += [total // 2, total - total // 2]
        else:
            pads += [module.padding[i]] * 2
    return pads
