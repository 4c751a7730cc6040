"""SANIA's step from the loss against a plain restatement."""

import pytest
import torch

from optimizers.trajectories import start
from references.diagonal import sania_polyak
from steepest import AdamSANIA


class Quadratic:
    """f = c/2 sum |W_l - X_l|^2 with a different curvature per layer."""

    def __init__(self, scale: float) -> None:
        self.targets = [start((3, 4), seed=11), start((5,), seed=12)]
        self.curvature = [scale, 3 * scale]

    def loss_and_grads(self, weights):
        grads = [c * (w - x) for c, w, x in zip(self.curvature, weights, self.targets, strict=True)]
        loss = sum(
            0.5 * c * float((w - x).pow(2).sum())
            for c, w, x in zip(self.curvature, weights, self.targets, strict=True)
        )
        return loss, grads

    def loss(self, weights):
        terms = zip(self.curvature, weights, self.targets, strict=True)
        return torch.stack([0.5 * c * (w - x).pow(2).sum() for c, w, x in terms]).sum()


@pytest.mark.parametrize("scale", [0.07, 0.8])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("eps", [None, 0.17, 1e-3])
@pytest.mark.parametrize("accumulate", ["ema", "sum"])
def test_step_from_the_loss(scale, weight_decay, eps, accumulate):
    """Both branches of lambda.

    Its square root magnifies rounding where 2 f = q, which these curvatures keep away from.
    """
    task, w0 = Quadratic(scale), [start((3, 4), seed=3), start((5,), seed=4)]
    parameters = [torch.nn.Parameter(w.clone()) for w in w0]
    optimizer = AdamSANIA(
        parameters,
        lr=0.7,
        betas=(0.9, 0.95),
        eps=eps,
        weight_decay=weight_decay,
        polyak=True,
        accumulate=accumulate,
        fused=False,
    )

    def closure():
        optimizer.zero_grad()
        loss = task.loss(parameters)
        loss.backward()
        return loss

    expected = sania_polyak(
        w0,
        task.loss_and_grads,
        20,
        lr=0.7,
        beta=0.95 if accumulate == "ema" else None,
        eps=0.1 if eps is None else eps,
        weight_decay=weight_decay,
    )
    for step in expected:
        optimizer.step(closure)
        for p, w in zip(parameters, step, strict=True):
            torch.testing.assert_close(p.detach(), w, rtol=0, atol=1e-10)
