"""What people put around an optimizer in a loop of their own: every public optimizer takes it."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import steepest
from toys import CURVED, MAKERS, WHOLE_NETWORK, copies, equal, give_gradients, parameters, same, snapshot

every = pytest.mark.parametrize("name", MAKERS)


def stepped(name: str, step_of: Any, count: int = 3) -> tuple[list[Tensor], dict[str, Any]]:
    """Weights and state after some steps taken by ``step_of(optimizer, params)``."""
    params = parameters(dtype=torch.float32)
    optimizer = MAKERS[name](params)
    step = step_of(optimizer, params)
    for seed in range(count):
        give_gradients(params, seed)
        step()
    return copies(params), snapshot(optimizer)


@every
def test_grad_scaler_changes_no_bit(name):
    def scaled(optimizer, params):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

        def step():
            scaler.scale(torch.zeros(()))  # makes the scale
            for param in params:
                param.grad.mul_(scaler.get_scale())
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()

        return step

    weights, state = stepped(name, scaled)
    expected, expected_state = stepped(name, lambda optimizer, _: optimizer.step)
    assert equal(weights, expected)
    assert same(state, expected_state)


@every
def test_grad_scaler_leaves_out_steps_with_overflow(name):
    params = parameters(dtype=torch.float32)
    optimizer = MAKERS[name](params)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before, before_state = copies(params), snapshot(optimizer)
    scaler.scale(torch.zeros(()))
    give_gradients(params, 0)
    assert params[2].grad is not None
    params[2].grad[1, 1] = torch.inf
    scaler.step(optimizer)
    scaler.update()
    assert equal(copies(params), before)
    assert same(snapshot(optimizer), before_state)
    assert scaler.get_scale() == 2.0


@every
def test_compiled_step_is_the_step_and_is_not_traced(name):
    torch._dynamo.reset()
    traced = []

    def backend(module, _):
        traced.append(module)
        return module.forward

    weights, state = stepped(name, lambda optimizer, _: torch.compile(optimizer.step, backend=backend))
    expected, expected_state = stepped(name, lambda optimizer, _: optimizer.step)
    assert equal(weights, expected)
    assert same(state, expected_state)
    assert not traced


def regression() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    return model, torch.randn(32, 6), torch.randn(32, 3)


def test_a_closure_with_a_compiled_model_stays_compiled():
    torch._dynamo.reset()
    model, x, y = regression()
    calls = []

    def backend(module, _):
        def call(*inputs):
            calls.append(len(inputs))
            return module.forward(*inputs)

        return call

    compiled = torch.compile(model, backend=backend)
    optimizer = steepest.Muon(model.parameters(), lr=0.02)

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(compiled(x), y)
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(3)]
    assert len(calls) == 3
    assert losses[-1] < losses[0]


SCHEDULERS: dict[str, Any] = {
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda t: 0.9**t),
    "step": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 8),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, [0.1, 0.2], total_steps=10, cycle_momentum=False),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 2, cycle_momentum=False),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5, 2), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=3), lr_scheduler.PolynomialLR(o, 6)], [3]
    ),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_drive_both_rules_of_a_hybrid(name):
    """The rates are those a scheduler gives torch's own SGD at the same groups, and they act."""

    def rates(optimizer, params):
        scheduler = SCHEDULERS[name](optimizer)
        for seed in range(8):
            give_gradients(params, seed)
            optimizer.step()
            scheduler.step(*([1.0] if name == "plateau" else []))
            yield [float(group["lr"]) for group in optimizer.param_groups]

    ours, theirs = parameters(), parameters()
    optimizer = steepest.Muon(ours, lr=0.02, aux={"lr": 0.1})
    groups = [{"params": g["params"], "lr": g["lr"]} for g in optimizer.param_groups]
    for group, twins in zip(groups, ([0, 2, 3, 5], [1, 4]), strict=True):
        group["params"] = [theirs[i] for i in twins]
    reference = torch.optim.SGD(groups, lr=1.0)
    assert list(rates(optimizer, ours)) == list(rates(reference, theirs))


def test_one_cycle_cycles_the_momentum_of_a_rule_that_has_one():
    model, x, y = regression()
    optimizer = steepest.ANDI(model.parameters(), lr=0.02, momentum=0.9)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=10, base_momentum=0.8, max_momentum=0.9)
    seen = []
    for _ in range(9):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        scheduler.step()
        seen.append(optimizer.param_groups[0]["momentum"])
    assert min(seen) == pytest.approx(0.8, abs=0.02)
    assert max(seen) == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in CURVED])
def test_accumulated_gradients_are_those_of_the_whole_batch(name):
    """In float64, two halves of a batch give the step of the whole batch to rounding."""
    results = []
    for parts in (1, 2):
        model, x, y = regression()
        model, x, y = model.double(), x.double(), y.double()
        optimizer = MAKERS[name](model.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            for part in range(parts):
                rows = slice(part, None, parts)
                (nn.functional.mse_loss(model(x[rows]), y[rows]) / parts).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        results.append(copies(list(model.parameters())))
    for whole, halves in zip(*results, strict=True):
        torch.testing.assert_close(halves, whole, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in WHOLE_NETWORK])
def test_stepping_inside_the_backward_pass_is_stepping_after_it(name):
    """Once its gradient is there, the rest of the backward pass no longer needs a weight."""

    def trained(inside: bool) -> list[Tensor]:
        model, x, y = regression()
        params = list(model.parameters())
        together = MAKERS[name](params)
        alone: dict[Tensor, Any] = {param: MAKERS[name]([param]) for param in params}

        def step_now(param: Tensor) -> None:
            alone[param].step()
            alone[param].zero_grad()

        handles = [p.register_post_accumulate_grad_hook(step_now) for p in params if inside]
        for _ in range(4):
            nn.functional.mse_loss(model(x), y).backward()
            if not inside:
                together.step()
                together.zero_grad()
        assert len(handles) == (len(params) if inside else 0)
        return copies(params)

    for ours, wanted in zip(trained(True), trained(False), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-6)


def test_averaged_model_beside_an_optimizer():
    """The average is torch's: the recurrence over the weights after each step."""
    model, x, y = regression()
    optimizer = steepest.ANDI(model.parameters(), lr=0.02)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    expected: list[Tensor] | None = None
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        average.update_parameters(model)
        now = copies(list(model.parameters()))
        expected = (
            now if expected is None else [0.5 * a + 0.5 * b for a, b in zip(expected, now, strict=True)]
        )
    assert expected is not None
    for ours, wanted in zip(average.module.parameters(), expected, strict=True):
        torch.testing.assert_close(ours, wanted)


def test_losses_fall_under_autocast():
    model, x, y = regression()
    optimizer = steepest.Muon(model.parameters(), lr=0.02, aux={"lr": 1e-2})
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.mse_loss(model(x), y.bfloat16())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert losses[-1] < 0.8 * losses[0]
    assert sum(b < a for a, b in itertools.pairwise(losses)) >= 10
