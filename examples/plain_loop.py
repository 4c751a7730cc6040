"""Train a small network on real digits with one line changed: Muon for the matrices, AdamW for the rest."""

import torch
from sklearn.datasets import load_digits
from torch.nn import Linear, ReLU, Sequential
from torch.nn.functional import cross_entropy

import steepest

torch.manual_seed(0)
digits = load_digits(return_X_y=True)
images, labels = torch.tensor(digits[0], dtype=torch.float32) / 16, torch.tensor(digits[1])
train, test = slice(0, 1500), slice(1500, None)

model = Sequential(Linear(64, 128), ReLU(), Linear(128, 128), ReLU(), Linear(128, 10))
head = model[4].weight
groups = [
    {"params": [p for p in model.parameters() if p is not head]},
    {"params": [head], "rule": "aux"},  # output heads and embeddings belong to the auxiliary AdamW
]
optimizer = steepest.Muon(groups, lr=0.02, weight_decay=0.01, aux={"lr": 3e-3})
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=150)  # drives both rules

for step in range(150):
    batch = torch.randint(1500, (64,))
    optimizer.zero_grad()
    loss = cross_entropy(model(images[train][batch]), labels[train][batch])
    loss.backward()
    optimizer.step()
    scheduler.step()
    if step % 50 == 0:
        print(f"step {step:3d}  loss {loss.item():.3f}")

accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean().item()
print(f"test accuracy {accuracy:.3f}")
assert accuracy > 0.9
