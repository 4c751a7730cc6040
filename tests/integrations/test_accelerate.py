"""Accelerate: prepare, accumulate, clip, mixed precision, and its saved states."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import steepest

pytest.importorskip("sklearn")
accelerate = pytest.importorskip("accelerate")

from integrations.pictures import loader, network  # noqa: E402 - needs scikit-learn

MAKERS = {
    "Muon": lambda groups: steepest.Muon(groups, lr=0.02, weight_decay=0.1, aux={"lr": 3e-3}),
    "ANDI": lambda groups: steepest.ANDI(groups, lr=0.02),
    "SOAP": lambda groups: steepest.SOAP(groups, lr=3e-3, precondition_frequency=2, aux={"lr": 3e-3}),
}
EPOCHS, ACCUMULATE = 3, 2


@pytest.fixture(autouse=True)
def fresh():
    """Accelerate's settings belong to the process."""
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


class Run:
    def __init__(self, name, precision):
        self.accelerator = accelerate.Accelerator(
            cpu=True, mixed_precision=precision, gradient_accumulation_steps=ACCUMULATE
        )
        model = network()
        optimizer = MAKERS[name](steepest.param_groups(model))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
        self.prepared = self.accelerator.prepare(model, optimizer, loader(), schedule)

    def train(self, epochs):
        model, optimizer, batches, schedule = self.prepared
        losses = []
        for _ in range(epochs):
            for pictures, labels in batches:
                with self.accelerator.accumulate(model):
                    loss = cross_entropy(model(pictures), labels)
                    self.accelerator.backward(loss)
                    if self.accelerator.sync_gradients:
                        self.accelerator.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    schedule.step()
                    optimizer.zero_grad()
                losses.append(loss.item())
        return losses

    @property
    def model(self):
        return self.prepared[0]


def plain_loop(name, bf16):
    model = network()
    optimizer = MAKERS[name](steepest.param_groups(model))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    losses = []
    for _ in range(EPOCHS):
        for i, (pictures, labels) in enumerate(loader(), 1):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                scores = model(pictures)
            loss = cross_entropy(scores.float(), labels)
            losses.append(loss.item())
            (loss / ACCUMULATE).backward()
            if i % ACCUMULATE == 0:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
    return model, losses


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("name", ["Muon", "ANDI"])
def test_the_numbers_of_a_plain_loop(name, precision):
    run = Run(name, precision)
    losses = run.train(EPOCHS)
    model, expected = plain_loop(name, precision == "bf16")
    assert losses == expected
    assert losses[-1] < losses[0] - 0.3
    assert same(run.model, model)


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("name", MAKERS)
def test_resumes_from_its_saved_state_to_the_bit(tmp_path, name, precision):
    whole = Run(name, precision)
    whole.train(1)
    whole.accelerator.save_state(str(tmp_path))
    rest = whole.train(EPOCHS - 1)
    resumed = Run(name, precision)
    resumed.accelerator.load_state(str(tmp_path))
    assert resumed.train(EPOCHS - 1) == rest
    assert same(resumed.model, whole.model)


def test_a_state_of_another_optimizer_is_refused(tmp_path):
    run = Run("Muon", "no")
    run.train(1)
    run.accelerator.save_state(str(tmp_path))
    other = Run("SOAP", "no")
    with pytest.raises(ValueError, match="the checkpoint is of another optimizer or of other settings"):
        other.accelerator.load_state(str(tmp_path))
