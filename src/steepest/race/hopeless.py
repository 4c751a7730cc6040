"""When a run of the learning rate search is not worth its second half.

A run is stopped half way if its validation loss, at every evaluation since a quarter of its steps, was no
better than before training. The rule looks at that one run and at the loss of the untrained weights, which
is the same for every optimizer on the seed of the search. So it does not depend on other runs, on their
order or on how many workers there are, and it can favour no one. Final runs are never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def why_hopeless(val_curve: Sequence[tuple[int, float]], steps: int) -> str | None:
    """Say in words why a run should stop now, or return None.

    Args:
        val_curve: steps and validation losses so far, the one before training first.
        steps: of the whole run.
    """
    (_, before), *later = val_curve
    seen = [(step, loss) for step, loss in later if step >= steps / 4]
    if not seen or not math.isfinite(before) or not steps / 2 <= seen[-1][0] < steps:
        return None
    if any(loss < before for _, loss in seen):
        return None
    return (
        f"at step {seen[-1][0]}, no validation loss since step {seen[0][0]} was below {before:.4g}, "
        "that before training"
    )
