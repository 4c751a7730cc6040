"""Classes of images: the loss, and metrics on validation and test images."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from steepest.race.tasks.pictures import Batch, Part, Pictures, first


def loss(network: nn.Module, drawn: Batch) -> Tensor:
    """Cross-entropy in nats."""
    return F.cross_entropy(network(drawn[0]), drawn[1])


def evaluate(network: nn.Module, pictures: Pictures, *, validation: int, test: int) -> dict[str, float]:
    """Cross-entropy and accuracy on so many validation images, and the accuracy on so many test images."""
    val_loss, val_accuracy = _measure(network, pictures.val, validation)
    _, test_accuracy = _measure(network, pictures.test, test)
    return {"val_loss": val_loss, "val_accuracy": val_accuracy, "test_accuracy": test_accuracy}


def _measure(network: nn.Module, part: Part, count: int) -> tuple[float, float]:
    total, correct, seen = 0.0, 0.0, 0
    for images, labels in first(part, count, network):
        logits = network(images)
        total += F.cross_entropy(logits, labels, reduction="sum").item()
        correct += (logits.argmax(1) == labels).sum().item()
        seen += len(labels)
    return total / seen, correct / seen
