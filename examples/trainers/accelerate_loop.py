"""Accelerate: two batches a step, clipping, bfloat16, a state saved in the middle and loaded."""

import tempfile

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import steepest

pictures, labels = load_digits(return_X_y=True)
digits = TensorDataset(torch.tensor(pictures, dtype=torch.float32) / 16, torch.tensor(labels))
accelerator = Accelerator(mixed_precision="bf16", gradient_accumulation_steps=2)


def prepared():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 10))
    optimizer = steepest.Muon(steepest.param_groups(model), lr=0.02, aux={"lr": 3e-3})
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60)
    return accelerator.prepare(model, optimizer, schedule, DataLoader(digits, batch_size=64))


def train(model, optimizer, schedule, batches) -> list[float]:
    losses = []
    for inputs, targets in batches:
        with accelerator.accumulate(model):
            loss = cross_entropy(model(inputs), targets)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    return losses


parts = prepared()
first = train(*parts)
with tempfile.TemporaryDirectory() as folder:
    accelerator.save_state(folder)
    second = train(*parts)
    accelerator.free_memory(*parts)
    parts = prepared()
    accelerator.load_state(folder)
    resumed = train(*parts)

print(f"loss {first[0]:.3f} at first, {second[-1]:.3f} after two epochs")
print("resumed to the same losses:", resumed == second)
assert sum(second[-5:]) / 5 < first[0] - 0.4
assert accelerator.device.type != "cpu" or resumed == second
