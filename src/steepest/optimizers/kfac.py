"""K-FAC: natural gradient from the covariances of a layer's inputs and output gradients."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from steepest import stepping
from steepest.apply import apply_
from steepest.groups import SHARED_KEYS, Member, describe, entries_of, tensor_of
from steepest.hypers import reject_misspelt, resolve, validate
from steepest.momentum import HeavyBall
from steepest.optimizer import GROUP_KEYS, RuleOptimizer
from steepest.preconditioners import Identity
from steepest.preconditioners.kfac import ActivationKronecker
from steepest.preconditioners.kfac.direction import FACTOR_STATE, layer_direction, layer_state, observes_next
from steepest.preconditioners.kfac.factors import kl_factor, squared_length
from steepest.preconditioners.kfac.front import restored
from steepest.preconditioners.kfac.hooks import LayerWatch, require_one_process
from steepest.preconditioners.kfac.layers import Layer
from steepest.preconditioners.kfac.options import KFAC_CHECKS
from steepest.rounding import Rounding, compute_dtype, weight_of
from steepest.rule import Rule
from steepest.screening import passes
from steepest.steps import DualScaled
from steepest.views import as_stack, initial_state, scatter


class KFAC(RuleOptimizer):
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
        by calling their layer. On sharded weights (``fully_shard``), which are refused. With a
        ``GradScaler``, whose scale enters A. With penalties that differentiate twice. Layers inside
        ``MultiheadAttention`` are not called by it and go to ``aux``.

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
            for a layer with a gradient whose passes were never seen, and with several processes without
            :func:`steepest.distributed.split_work`.

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
        groups = _groups(params)
        try:
            trained = {id(p) for group in groups for p in _tensors(group) if group.get("rule") != "aux"}
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

    def _rule(self, group: Mapping[str, Any]) -> Rule:
        """Return the part of the rule that acts on one parameter, once its layer is preconditioned."""
        rule = super()._rule(group)
        return rule if group.get("rule") == "aux" else replace(rule, preconditioner=Identity())

    def remove_hooks(self) -> None:
        """Take every hook off the model. Training can not go on, as layers are no longer seen."""
        self._watch.remove()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset all gradients, and drop the statistics that came with them."""
        super().zero_grad(set_to_none)
        self._watch.forget()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as its layers' half and its auxiliary half; new layers of the model are hooked."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, got {param_group!r}")
        if "params" not in param_group:
            raise ValueError(f"param_group must hold 'params', got {', '.join(map(repr, param_group))}")
        group = {**param_group, "params": self._named(entries_of(param_group["params"]))}
        reject_misspelt("param_group", group, (*self.defaults, *self._aux, *GROUP_KEYS))
        aux = group.get("rule") == "aux"
        validate(group, None if aux else self.checks)
        found = [] if aux else self._watch.find({id(p) for p in _tensors(group)})
        mine = set() if aux else {id(p) for layer in [*self._watch.layers, *found] for p in layer.parameters}
        others = [entry for entry in group["params"] if id(tensor_of(entry)) not in mine]
        own = [entry for entry in group["params"] if id(tensor_of(entry)) in mine]
        tensors = sys.modules.get("torch.distributed.tensor")
        if tensors is not None and any(isinstance(tensor_of(entry), tensors.DTensor) for entry in own):
            raise ValueError(
                "K-FAC works on whole weights, alone or on replicas, got a DTensor: the covariances of a "
                "sharded layer's inputs are not gathered; use SOAP or Shampoo, which need gradients alone"
            )
        if own and group.get("batch_dims", 0):
            raise ValueError(f"batch_dims must be 0 for K-FAC layers, got {group['batch_dims']!r}")
        if own and group.get("split_sizes"):
            raise ValueError(f"split_sizes must be None for K-FAC layers, got {group['split_sizes']!r}")
        if others and group.get("rule") == "matrix":
            raise ValueError(
                f"rule='matrix' needs parameters of K-FAC layers, got one of shape "
                f"{tuple(tensor_of(others[0]).shape)} that is not; leave 'rule' out or give it rule='aux'"
            )
        count = len(self.param_groups)
        try:
            if own:
                # Past the base class, which would tell the halves apart by dimensions.
                super(RuleOptimizer, self).add_param_group({**group, "params": own, "rule": "matrix"})
                self._check_group(self.param_groups[-1])
            if others or not own:
                kept = {k: v for k, v in group.items() if aux or k in SHARED_KEYS or k not in self.defaults}
                super().add_param_group({**kept, "params": others, "rule": "aux"})
        except Exception:
            del self.param_groups[count:]
            raise
        self._watch.add(found)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; with ``closure``, evaluate it first under ``enable_grad`` and return its loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        try:
            members = list(self._members())
            if passes(members):
                self._move_layers([member for member in members if member.group.get("rule") != "aux"])
                aux = [member for member in members if member.group.get("rule") == "aux"]
                stepping.take_step(aux, self._rules(), self.state, loss)
        finally:
            self._watch.forget()
        self._plan()
        return loss

    def _move_layers(self, members: list[Member]) -> None:
        """Move the parameters of all layers: directions first, their common factor, then momentum."""
        moves = self._moves(members)
        total = squared_length((resolve(move.group, ())["lr"], move.direction, move.grad) for move in moves)
        counted = {id(layer.weight) for layer in self._watch.layers}
        for move in moves:
            param, group, direction = move.param, move.group, move.direction
            if group["kl_clip"] is not None:
                direction = direction * kl_factor(total, group["kl_clip"]).to(direction)
            rule, state = self._rule(group), self.state[param]
            if "momentum_buffer" not in state:
                state.update({**initial_state(rule, param, group), **state})
            if "step" in state and id(param) not in counted:
                state["step"].add_(1)  # of a bias; a layer's own is counted with its statistics
            hypers = resolve(group, rule.hypers())
            buffers = {"momentum_buffer": as_stack(state["momentum_buffer"].to(direction.dtype), 0)}
            direction = rule.momentum(as_stack(direction, 0), buffers, hypers)
            scatter(buffers, [state], stochastic=group["rounding"] == "stochastic")
            apply_(param, direction.reshape(param.shape), hypers, rule, stored=weight_of(param, state, group))

    def _layers_to_move(self, members: list[Member]) -> list[tuple[Layer, dict[str, Any]]]:
        """Return the layers that have gradients, each with the group of its weight, after checking all."""
        groups = self._group_of()
        waiting = {id(member.param): (member.group, member.index) for member in members}
        found: list[tuple[Layer, dict[str, Any]]] = []
        for layer in self._watch.layers:
            if [p for p in layer.parameters if waiting.pop(id(p), None)]:
                if "step" not in self.state.get(layer.weight, {}):
                    self._watch.require(layer)
                found.append((layer, groups[id(layer.weight)]))
        if waiting:
            group, i = next(iter(waiting.values()))
            raise RuntimeError(
                f"{describe(group, i)} is in a group of K-FAC layers, but no layer of the model has it"
            )
        if found and self._replicas is None:
            require_one_process()
        return found

    def _moves(self, members: list[Member]) -> list[_Move]:
        """Return the directions of all layers that have gradients."""
        replicas = self._replicas
        if replicas is not None:
            self._sum_statistics(replicas)
        work = [(layer, group, self._grads(layer, group)) for layer, group in self._layers_to_move(members)]
        directions = (
            [self._directions(*one) for one in work] if replicas is None else self._shared(work, replicas)
        )
        groups = self._group_of()
        return [
            _Move(p, groups[id(p)], g, u)
            for (layer, _, grads), found in zip(work, directions, strict=True)
            for p, g, u in zip(layer.parameters, grads, found, strict=True)
            if g is not None
        ]

    def _grads(self, layer: Layer, group: dict[str, Any]) -> list[Tensor | None]:
        grads = [None if p.grad is None else p.grad.to(compute_dtype(p)) for p in layer.parameters]
        return [None if g is None else -g for g in grads] if group["maximize"] else grads

    def _directions(self, layer: Layer, group: dict[str, Any], grads: list[Tensor | None]) -> list[Tensor]:
        preconditioner = self._preconditioner(layer, group)
        state = self.state[layer.weight]
        if "step" not in state:
            state.update(layer_state(layer, preconditioner))
        hypers = resolve(group, preconditioner.hypers())
        hypers["statistics"] = self._watch.means(layer)
        return layer_direction(layer, grads, state, preconditioner, hypers)

    @property
    def _replicas(self) -> Any:
        """The process group over which layers are divided, or None."""
        return None if self._sharding is None else self._sharding.replicas

    def _sum_statistics(self, replicas: Any) -> None:
        from steepest.distributed.kfac import sum_statistics

        seen = [layer for layer in self._watch.layers if layer.observing]
        new = [layer for layer in seen if "step" not in self.state.get(layer.weight, {})]
        averaged = self._watch.loss_average is not None
        sum_statistics(seen, replicas, averaged, self._watch.outputs, new)

    def _shared(
        self, work: list[tuple[Layer, dict[str, Any], list[Tensor | None]]], replicas: Any
    ) -> list[list[Tensor]]:
        """Return the directions of layers, each computed by its owner, which alone keeps its factors."""
        from steepest.distributed.collectives import rank_in
        from steepest.distributed.kfac import layer_owners, release_factors, share_directions

        owners, own = layer_owners(self._watch.layers, replicas), {}
        for i, (layer, group, grads) in enumerate(work):
            state = self.state[layer.weight]
            if owners[layer] == rank_in(replicas):
                if "step" in state and "statistics_weight" not in state:
                    raise RuntimeError(
                        f"the factors of layer {layer.name!r} are not on its owner: layers must not be added "
                        "during training on replicas; load a checkpoint after adding them"
                    )
                own[i] = self._directions(layer, group, grads)
            else:
                state.setdefault("step", torch.zeros(())).add_(1)
                release_factors(state)
        layers = [layer for layer, _, _ in work]
        return share_directions(layers, owners, own, replicas, self._sharding.traffic) if layers else []

    def gather_factors(self) -> None:
        """Give every replica all factors; :func:`steepest.distributed.gather_state` calls this."""
        if self._replicas is None:
            return
        from steepest.distributed.kfac import layer_owners, share_factors

        groups = self._group_of()
        layers = [layer for layer in self._watch.layers if "step" in self.state.get(layer.weight, {})]
        meta = torch.device("meta")
        templates = [
            layer_state(layer, self._preconditioner(layer, groups[id(layer.weight)]), meta)
            for layer in layers
        ]
        states = [self.state[layer.weight] for layer in layers]
        if layers:
            owners = layer_owners(self._watch.layers, self._replicas)
            share_factors(layers, templates, owners, states, self._replicas)

    def state_dict(self) -> dict[str, Any]:
        """Return torch's state dict; on replicas that divide layers, after their factors were gathered."""
        for layer in self._watch.layers if self._replicas is not None else ():
            state = self.state.get(layer.weight, {})
            if "step" in state and "statistics_weight" not in state:
                raise RuntimeError(
                    f"the factors of layer {layer.name!r} are on another rank, its owner: call "
                    "steepest.distributed.gather_state(optimizer) on every rank before state_dict()"
                )
        return super().state_dict()

    def _named(self, entries: list[Any]) -> list[Any]:
        """Give bare parameters their names in the model, where the groups so far have names."""
        if not self.param_groups or "param_names" not in self.param_groups[0]:
            return entries
        names = {id(p): name for name, p in self._watch.model.named_parameters()}
        return [(names[id(entry)], entry) if id(entry) in names else entry for entry in entries]

    def _preconditioner(self, layer: Layer, group: Mapping[str, Any]) -> ActivationKronecker:
        part = self.recipe(group).preconditioner
        assert isinstance(part, ActivationKronecker)
        return replace(part, diagonal_input=layer.kind.diagonal_input)

    def _group_of(self) -> dict[int, dict[str, Any]]:
        return {id(p): group for group in self.param_groups for p in group["params"]}

    def _plan(self) -> None:
        """Tell every layer whether the coming step gathers statistics."""
        groups = self._group_of()
        for layer in self._watch.layers:
            if group := groups.get(id(layer.weight)):
                frequency = group["statistics_frequency"]
                layer.observing = observes_next(self.state.get(layer.weight), frequency)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict bit for bit, or raise before anything changes if it does not fit."""
        layers = {id(layer.weight): layer for layer in self._watch.layers}
        plain, factors = dict(state_dict["state"]), {}
        for old, new in zip(state_dict["param_groups"], self.param_groups, strict=False):
            for key, param in zip(old["params"], new["params"], strict=False):
                if (layer := layers.get(id(param))) is None or key not in plain:
                    continue
                saved = {name: value for name, value in plain[key].items() if name in FACTOR_STATE}
                plain[key] = {name: value for name, value in plain[key].items() if name not in FACTOR_STATE}
                if saved or plain[key]:
                    factors[param] = restored(layer, saved, self._preconditioner(layer, {**new, **old}))
        super().load_state_dict({**state_dict, "state": plain})
        for param, own in factors.items():
            self.state[param] = {**own, **self.state.get(param, {})}
        self._plan()

    def __getstate__(self) -> dict[str, Any]:
        """Return what copies and pickles carry: the model too, whose copy is watched by the copy."""
        return {**super().__getstate__(), "_watch": self._watch}


@dataclass
class _Move:
    """A direction that waits for the factor of the whole network."""

    param: Tensor
    group: dict[str, Any]
    grad: Tensor
    direction: Tensor


def _groups(params: Any) -> list[dict[str, Any]]:
    if isinstance(params, Tensor):
        raise TypeError("params must be an iterable of tensors or groups, got one tensor")
    entries = entries_of(params)
    groups = entries if not entries or isinstance(entries[0], dict) else [{"params": entries}]
    return [{**group, "params": entries_of(group["params"])} for group in groups]


def _tensors(group: Mapping[str, Any]) -> list[Tensor]:
    return [tensor_of(entry) for entry in entries_of(group["params"])]
