"""The optimizer inside what trainers put around it."""

from __future__ import annotations

from torch.optim import Optimizer


def innermost(optimizer: Optimizer) -> Optimizer:
    """Return the optimizer that steps: what Accelerate's and Lightning's wrappers hold, or itself.

    Wrappers share groups and state with it, but not hooks, and a copy of a wrapper would step the original.

    Raises:
        ValueError: it steps another one and is more than a wrapper, such as timm's Lookahead.
    """
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    held = [name for name, value in vars(optimizer).items() if isinstance(value, Optimizer)]
    if held:
        raise ValueError(
            f"{type(optimizer).__name__} steps another optimizer: give that one, its attribute {held[0]!r}"
        )
    return optimizer
