"""ResNet-9 and its plain variant for images of 32 x 32 pixels."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


class Convolution(nn.Sequential):
    """A 3 x 3 convolution, batch normalisation, ReLU and, if asked for, 2 x 2 max-pooling."""

    def __init__(self, inputs: int, outputs: int, *, pool: bool = False) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )
        if pool:
            self.append(nn.MaxPool2d(2))


class Pair(nn.Module):
    """Two convolutions of one width; with ``residual`` the input is added to what they give."""

    def __init__(self, channels: int, *, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.body = nn.Sequential(Convolution(channels, channels), Convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        return x + self.body(x) if self.residual else self.body(x)


def resnet9(channels: int, *, classes: int = 10, side: int = 32, residual: bool = True) -> nn.Sequential:
    """Build eight convolutions and a linear layer.

    Args:
        channels: of the first convolution; the later ones have 2, 4 and 8 times as many. Usual: 64.
        classes: outputs.
        side: height and width of the images, 32 or 16.
        residual: whether each pair of equal convolutions has a link around it.
    """
    c = channels
    return nn.Sequential(
        OrderedDict(
            first=Convolution(3, c),
            second=Convolution(c, 2 * c, pool=True),
            pair1=Pair(2 * c, residual=residual),
            third=Convolution(2 * c, 4 * c, pool=True),
            fourth=Convolution(4 * c, 8 * c, pool=True),
            pair2=Pair(8 * c, residual=residual),
            pool=nn.MaxPool2d(side // 8),
            flatten=nn.Flatten(),
            head=nn.Linear(8 * c, classes),
        )
    )
