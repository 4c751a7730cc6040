"""K-FAC: natural gradient from the covariances of a layer's inputs and output gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from steepest.layerwise import LayerOptimizer, groups_of, tensors_of
from steepest.momentum import HeavyBall
from steepest.preconditioners.kfac import ActivationKronecker
from steepest.preconditioners.kfac.hooks import LayerWatch
from steepest.preconditioners.kfac.layers import Layer
from steepest.preconditioners.kfac.options import KFAC_CHECKS
from steepest.rounding import Rounding
from steepest.rule import Rule
from steepest.steps import DualScaled


class KFAC(LayerOptimizer):
    """KFAC: every layer's gradient in the metric of its inputs and output gradients.

    Formula:
        [W b] is one m x n matrix with gradient G; A averages g g^T, B averages [x; 1] [x; 1]^T
        A = Q_A diag(a) Q_A^T, B = Q_B diag(b) Q_B^T
        U = Q_A [(Q_A^T G Q_B) / (a b^T + damping)] Q_B^T
        M <- momentum M + min(1, sqrt(kl_clip / |sum lr^2 <U, G>|)) U
        W <- (1 - lr weight_decay) W - lr M
        With ``factored_damping`` the denominator is (a + pi sqrt(damping)) (b + sqrt(damping) / pi)^T,
        pi^2 = mean(a) / mean(b).
        x is a row of input and g the gradient of one example's loss at the row of output. All positions of
        a sequence or image are rows, and a layer called several times has more rows (K-FAC-expand): B is
        the mean over rows, A the sum over the rows of an example, averaged over examples. Micro-batches
        between two steps count as one batch. The averages over steps weigh as an EMA does, normalised so
        that the first is the first batch.
        ``Linear``, ``Conv2d`` (patches under the kernel, ``groups=1``) and ``Embedding`` (B is the frequency
        of every index) are taken. All other parameters, and groups with ``rule="aux"``, are trained by
        AdamW with ``aux``.

    Neighbours:
        A^-1 G B^-1 for damping 0. FOOF with ``statistics="input"``, where A = 1. Shampoo's exponents doubled
        and its factors from activations instead of gradients. SGD for A = B = 1. It is
        :class:`steepest.KFACPreconditioner` in front of SGD.

    From AdamW:
        There is no fixed ratio: lr is in units of a natural-gradient step, and 1 is the whole of it. Begin at
        0.03; the clip makes lr matter little. Without it begin at 0.003. Then sweep damping
        by tens. The first bases come from one batch: without a clip they can send the steps until the next
        refresh far off.

    State:
        ``momentum_buffer`` of the parameter's shape. Under a layer's weight besides: ``output_covariance``,
        ``output_basis`` (m x m), ``output_eigenvalues`` (m), the same for ``input`` (n x n, the bias
        counted; for an embedding its covariance alone, one number per index), ``statistics_weight``,
        ``fallbacks`` and ``step``: 4 + 8 (m/n + n/m) bytes per float32 parameter.

    When not to use:
        For layers with a very wide side (the cost is its cube): ``skip`` them. With weights used other than
        by calling their layer. With a ``GradScaler``, whose scale enters A. With penalties that differentiate
        twice. Layers inside ``MultiheadAttention`` are not called by it and go to ``aux``.

    Args:
        model: the module whose layers are hooked. Statistics are gathered in training mode with gradients
            enabled, and only from calls that are differentiated.
        lr: step size, in units of weight: a natural-gradient step is 1.
        params: what to train: parameters, groups, or (name, parameter) pairs of the model; a group may set
            ``rule="aux"``. Default: all that require a gradient.
        momentum: coefficient of the sum of directions in [0, 1). Default 0.9.
        nesterov: look ahead by one step. Default False.
        weight_decay: decoupled decay, >= 0. Default 0.
        damping: added to products of eigenvalues, in their units (squared gradient of one example's loss
            at a weight), >= 0. Default 1e-2.
        factored_damping: damp A and B each instead of their product. Default False.
        stat_decay: coefficient of the averages A and B in [0, 1). Default 0.95.
        kl_clip: bound on the step's length in the metric, > 0, or None for no bound. Default 1e-3: the first
            bases come from a single batch, and unbounded steps in them often diverge.
        precondition_frequency: steps between eigendecompositions. Default 10.
        statistics_frequency: steps between the steps that gather statistics. Default 1.
        statistics: ``"both"`` or ``"input"``. Default ``"both"``.
        loss_average: ``"batch"`` if what is differentiated is a mean over examples (the leading dimension),
            so that one example's loss has N times its gradient; ``"batch+sequence"`` if it is a mean over
            all positions of ``Linear`` and ``Embedding`` inputs; None if it is a sum. Default ``"batch"``.
        skip: names of modules left to ``aux``, with all below them. Default none.
        aux: hyperparameters of the auxiliary AdamW: lr (1e-3), betas (0.9, 0.999), eps (1e-8),
            weight_decay (0).
        maximize, fused, nonfinite, rounding, momentum_dtype: as in :class:`steepest.Adam`.

    Raises:
        ValueError, TypeError, RuntimeError, FloatingPointError: as in :class:`steepest.Adam`. Besides,
            ValueError for weights shared between different layers (the same weight and bias in modules of
            one kind are one layer) and names in ``skip`` that are no module, and RuntimeError in ``step``
            for a layer with a gradient whose passes were never seen, and with several processes for plain
            weights without :func:`steepest.distributed.split_work`.

    Source:
        Martens and Grosse, Optimizing Neural Networks with Kronecker-factored Approximate Curvature, arXiv
        1503.05671; convolutions: arXiv 1602.01407; shared weights (expand): arXiv 2311.00636;
        input statistics alone: Benzing, Gradient Descent on Neurons, arXiv 2201.12250.

    Example:
        >>> import torch, steepest
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))
        >>> optimizer = steepest.KFAC(model, lr=0.05)
        >>> model(torch.randn(16, 8)).square().mean().backward()
        >>> optimizer.step()
        >>> optimizer.remove_hooks()
    """

    hybrid = True
    checks = KFAC_CHECKS

    def __init__(
        self,
        model: nn.Module,
        lr: float | Tensor,
        *,
        params: Any = None,
        momentum: float | Tensor = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        damping: float = 1e-2,
        factored_damping: bool = False,
        stat_decay: float = 0.95,
        kl_clip: float | None = 1e-3,
        precondition_frequency: int = 10,
        statistics_frequency: int = 1,
        statistics: str = "both",
        loss_average: str | None = "batch",
        skip: Iterable[str] = (),
        aux: Mapping[str, Any] | None = None,
        maximize: bool = False,
        fused: bool | None = None,
        nonfinite: str | None = None,
        rounding: Rounding = "nearest",
        momentum_dtype: torch.dtype | None = None,
    ) -> None:
        options = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "damping": damping,
            "factored_damping": factored_damping,
            "stat_decay": stat_decay,
            "kl_clip": kl_clip,
            "precondition_frequency": precondition_frequency,
            "statistics_frequency": statistics_frequency,
            "statistics": statistics,
        }
        self._watch = LayerWatch(model, skip=skip, loss_average=loss_average)
        if params is None:
            params = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        groups = groups_of(params)
        try:
            trained = {id(p) for group in groups for p in tensors_of(group) if group.get("rule") != "aux"}
            self._watch.add(self._watch.find(trained))
            super().__init__(
                groups,
                options,
                aux=aux,
                maximize=maximize,
                fused=fused,
                nonfinite=nonfinite,
                rounding=rounding,
                momentum_dtype=momentum_dtype,
            )
        except Exception:
            self._watch.remove()
            raise

    @classmethod
    def recipe(cls, group: Mapping[str, Any]) -> Rule:
        """Return the rule: Frobenius norm, covariances of activations, late heavy-ball, dual scaling."""
        return Rule(
            preconditioner=ActivationKronecker(
                factored_damping=group["factored_damping"],
                precondition_frequency=group["precondition_frequency"],
                statistics=group["statistics"],
            ),
            momentum=HeavyBall(nesterov=group["nesterov"], where="after"),
            step=DualScaled(),
        )

    def _preconditioner(self, layer: Layer, group: Mapping[str, Any]) -> ActivationKronecker:
        part = self.recipe(group).preconditioner
        assert isinstance(part, ActivationKronecker)
        return replace(part, diagonal_input=layer.kind.diagonal_input)
