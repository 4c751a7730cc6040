"""The shapes that step times are measured on."""

from __future__ import annotations

Shapes = list[tuple[int, ...]]


def gpt() -> Shapes:
    """29.4M parameters: 8 blocks of width 512, vocabulary 8192."""
    block: Shapes = [(1536, 512), (512, 512), (2048, 512), (512, 2048), (512,), (512,)]
    return [(8192, 512), *(shape for _ in range(8) for shape in block), (512,)]


def resnet() -> Shapes:
    """11.2M parameters: the convolutions, norms and head of a ResNet-18 for 10 classes."""
    shapes: Shapes = [(64, 3, 3, 3), (64,), (64,)]
    width = 64
    for out in (64, 128, 256, 512):
        for half in range(2):
            inputs = width if half == 0 else out
            shapes += [(out, inputs, 3, 3), (out,), (out,), (out, out, 3, 3), (out,), (out,)]
            if inputs != out:
                shapes += [(out, inputs, 1, 1), (out,), (out,)]
        width = out
    return [*shapes, (10, 512), (10,)]


def small() -> Shapes:
    """500 small tensors: what per-tensor overhead costs."""
    return [shape for _ in range(125) for shape in ((32, 32), (32,), (32, 64), (64,))]


SETS = {"gpt": gpt, "resnet": resnet, "small": small}
