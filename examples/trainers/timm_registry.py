"""timm's create_optimizer_v2 finds ANDI and Muon by name; a small vision transformer learns real digits."""

import sys

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import steepest
from steepest.integrations.timm import register

try:
    import timm  # pyright: ignore[reportMissingImports]
    from timm.optim import create_optimizer_v2  # pyright: ignore[reportMissingImports]
    from timm.scheduler import CosineLRScheduler  # pyright: ignore[reportMissingImports]
except (ImportError, RuntimeError) as error:
    print(f"timm or the torchvision it needs cannot be imported here: {error}")
    sys.exit(0)

register()
STEPS = 80
pictures, labels = load_digits(return_X_y=True)
pixels = torch.tensor(pictures, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16 - 0.3
digits = torch.tensor(labels)

for name, options in {
    "andi": {"lr": 0.1, "weight_decay": 0.05},
    "steepest-muon": {"lr": 0.02, "param_group_fn": steepest.param_groups, "aux": {"lr": 3e-3}},
}.items():
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=8,
        patch_size=2,
        in_chans=1,
        num_classes=10,
        depth=2,
        embed_dim=48,
        num_heads=3,
    )
    optimizer = create_optimizer_v2(model, name, **options)
    schedule = CosineLRScheduler(optimizer, t_initial=STEPS, warmup_t=5, t_in_epochs=False)
    losses = []
    for step in range(STEPS):
        schedule.step_update(step)
        rows = torch.randint(len(digits), (64,))
        loss = cross_entropy(model(pixels[rows]), digits[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"{name}: {type(optimizer).__name__}, loss {losses[0]:.3f} at first, {losses[-1]:.3f} at the end")
    assert sum(losses[-5:]) / 5 < losses[0] - 0.5
