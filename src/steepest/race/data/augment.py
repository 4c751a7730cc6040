"""Augmentation of whole batches at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def crop_and_flip(images: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Return ``images`` (b, c, h, w), each shifted by up to ``padding`` and mirrored with probability 1/2.

    What a shift brings into view is zero. Shifts and mirrors are drawn from ``generator``, a CPU one.
    """
    count, channels, height, width = images.shape
    down, right = torch.randint(2 * padding + 1, (2, count), generator=generator)
    mirrored = torch.rand(count, generator=generator) < 0.5
    columns = torch.arange(width).expand(count, width)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns) + right[:, None]
    rows = torch.arange(height) + down[:, None]
    padded = F.pad(images, (padding,) * 4)
    places = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    places = places.to(images.device).view(count, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, places).view_as(images)
