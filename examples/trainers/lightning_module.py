"""Lightning with Muon for the matrices and AdamW for the rest, stopped after an epoch and resumed."""

import logging
import tempfile

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import steepest

logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
pictures, labels = load_digits(return_X_y=True)
digits = TensorDataset(torch.tensor(pictures, dtype=torch.float32) / 16, torch.tensor(labels))
loader = DataLoader(digits, batch_size=64)


class Digits(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU())
        self.head = nn.Linear(128, 10)
        self.losses: list[float] = []

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        loss = cross_entropy(self.head(self.network(batch[0])), batch[1])
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = steepest.Muon(steepest.param_groups(self), lr=0.02, aux={"lr": 3e-3})
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(folder: str, checkpoint: str | None = None) -> Digits:
    torch.manual_seed(0)
    model = Digits()
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="auto",
        devices=1,
        precision="bf16-mixed",
        gradient_clip_val=1.0,
        callbacks=[ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, loader, ckpt_path=checkpoint)
    return model


with tempfile.TemporaryDirectory() as folder:
    whole = fit(folder)
    resumed = fit(folder, f"{folder}/epoch=0.ckpt")

after = whole.losses[len(loader) :]
print(f"loss {whole.losses[0]:.3f} at first, {whole.losses[-1]:.3f} at the end")
print("resumed to the same losses:", resumed.losses == after)
assert sum(whole.losses[-5:]) / 5 < 0.8
assert torch.cuda.is_available() or resumed.losses == after
