"""Lightning: the plain loop's numbers, exact resume, mixed precision, averages at validation."""

import logging
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import steepest

pytest.importorskip("sklearn")
L = pytest.importorskip("lightning.pytorch")

from integrations.pictures import BATCH, PICTURES, loader, network  # noqa: E402 - needs scikit-learn

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*Checkpoint directory .* exists and is not empty"),
]
EPOCHS = 3
STEPS = EPOCHS * PICTURES // BATCH
MAKERS = {
    "Muon": lambda groups: steepest.Muon(groups, lr=0.02, weight_decay=0.1, aux={"lr": 3e-3}),
    "ANDI": lambda groups: steepest.ANDI(groups, lr=0.02),
    "SOAP": lambda groups: steepest.SOAP(groups, lr=3e-3, precondition_frequency=5, aux={"lr": 3e-3}),
    "SPlus": lambda groups: steepest.SPlus(groups, lr=0.1, precondition_frequency=5),
}


def schedule_of(optimizer):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)


class Task(L.LightningModule):
    def __init__(self, name):
        super().__init__()
        self.name = name
        self.network = network()
        self.losses: list[float] = []

    def training_step(self, batch, index) -> Any:
        pictures, labels = batch
        loss = cross_entropy(self.network(pictures), labels)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = MAKERS[self.name](steepest.param_groups(self))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule_of(optimizer), "interval": "step"},
        }


class ByHand(Task):
    """The same with Lightning's manual optimization."""

    def __init__(self, name):
        super().__init__(name)
        self.automatic_optimization = False

    def training_step(self, batch, index) -> Any:
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, index))
        self.clip_gradients(optimizer, 1.0, "norm")
        optimizer.step()
        schedule.step()


def trainer(folder, task=Task, **others):
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    settings = {"enable_checkpointing": False, **others}
    if task is not ByHand:
        settings["gradient_clip_val"] = 1.0
    return L.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **settings,
    )


def plain_loop(name, accumulate=1, bf16=False):
    model = network()
    optimizer = MAKERS[name](steepest.param_groups(model))
    schedule = schedule_of(optimizer)
    losses = []
    for _ in range(EPOCHS):
        for i, (pictures, labels) in enumerate(loader(), 1):
            with torch.autocast("cpu", torch.bfloat16) if bf16 else nullcontext():
                loss = cross_entropy(model(pictures), labels)
            losses.append(loss.item())
            (loss / accumulate).backward()
            if i % accumulate == 0:
                # Lightning adds norms in the order of the groups.
                nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
    return model, losses


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize(
    ("task", "accumulate", "bf16"), [(Task, 1, False), (Task, 2, True), (ByHand, 1, False), (ByHand, 1, True)]
)
def test_the_numbers_of_a_plain_loop(tmp_path, task, accumulate, bf16):
    run = task("Muon")
    precision = "bf16-mixed" if bf16 else "32-true"
    trainer(tmp_path, task, precision=precision, accumulate_grad_batches=accumulate).fit(run, loader())
    model, losses = plain_loop("Muon", accumulate, bf16)
    assert run.losses == losses
    assert losses[-1] < losses[0] - 0.3
    assert same(run.network, model)


class EvaluateAverages(L.Callback):
    """Validates the averages of SPlus; as docs/trainers/lightning.md has it."""

    def on_validation_start(self, trainer, pl_module):
        for optimizer in trainer.optimizers:
            optimizer.eval()

    def on_validation_end(self, trainer, pl_module):
        for optimizer in trainer.optimizers:
            optimizer.train()


class Validated(Task):
    def validation_step(self, batch, _):
        pictures, labels = batch
        self.log("val_loss", cross_entropy(self.network(pictures), labels))


@pytest.mark.parametrize("name", MAKERS)
def test_resumes_from_its_checkpoints_to_the_bit(tmp_path, name):
    def fit(**others):
        run = Validated(name)
        callbacks = [L.callbacks.ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)]
        if name == "SPlus":
            callbacks.append(EvaluateAverages())
        settings = {"callbacks": callbacks, "enable_checkpointing": True, "num_sanity_val_steps": 0}
        settings["precision"] = "bf16-mixed" if name == "Muon" else "32-true"
        trainer(tmp_path, **settings).fit(run, loader(), loader(), **others)
        return run

    whole = fit()
    resumed = fit(ckpt_path=str(tmp_path / "epoch=0.ckpt"))
    assert len(whole.losses) == STEPS
    assert resumed.losses == whole.losses[STEPS // EPOCHS :]
    assert same(resumed.network, whole.network)


def test_validation_sees_the_averages(tmp_path):
    run = Validated("SPlus")
    lightning = trainer(tmp_path, callbacks=[EvaluateAverages()], num_sanity_val_steps=0)
    lightning.fit(run, loader(), loader())
    optimizer = lightning.optimizers[0]
    optimizer.eval()
    with torch.no_grad():
        losses = [cross_entropy(run.network(pictures), labels).item() for pictures, labels in loader()]
    assert lightning.callback_metrics["val_loss"].item() == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    optimizer.train()
    trained = [cross_entropy(run.network(pictures), labels).item() for pictures, labels in loader()]
    assert sum(trained) != sum(losses)


def test_steps_from_the_loss_get_it(tmp_path):
    """Lightning steps with a closure that returns the loss."""

    class Polyak(Task):
        def configure_optimizers(self):
            return steepest.AdamSANIA(self.parameters(), lr=1.0, polyak=True)

    run = Polyak("AdamSANIA")
    L.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    ).fit(run, loader())
    model, losses = network(), []
    optimizer = steepest.AdamSANIA(model.parameters(), lr=1.0, polyak=True)
    for _ in range(EPOCHS):
        for pictures, labels in loader():

            def closure(pictures=pictures, labels=labels):
                loss = cross_entropy(model(pictures), labels)
                optimizer.zero_grad()
                loss.backward()
                return loss

            losses.append(optimizer.step(closure).item())
    assert run.losses == losses
    assert losses[-1] < losses[0] - 0.3


def test_the_plan_reads_through_the_module_and_its_wrapper(tmp_path):
    run = Task("Muon")
    trainer(tmp_path, max_steps=1).fit(run, loader())
    plan = steepest.param_groups(run)
    assert plan.roles["network.head.weight"] == "head"
    assert plan.roles["network.body.0.weight"] == "conv"
    assert type(run.optimizers()).__name__ == "LightningMuon"
    assert plan.table(run.optimizers()) == plan.table(run.trainer.optimizers[0])


def test_a_typo_is_told_when_fitting_begins(tmp_path):
    class Misspelt(Task):
        def configure_optimizers(self):
            return steepest.Muon(steepest.param_groups(self, {"*.hiden": {"lr": 0.1}}), lr=0.02)

    with pytest.raises(ValueError, match=r"did you mean .*hidden"):
        trainer(tmp_path).fit(Misspelt("Muon"), loader())
