"""At which steps of a cycle each parameter's roots or bases are taken anew, if not all at once."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from steepest.rule import Rule


def slots(group: Mapping[str, Any], rule: Rule) -> dict[int, int]:
    """Return the step of the cycle at which each parameter of a group refreshes, by the parameter's id.

    Empty for rules that refresh all at once. It follows from the shapes and their order in the group alone,
    so that nothing is kept and training resumes bit for bit.
    """
    steps = rule.preconditioner.staggered
    if steps == 1:
        return {}
    skipped = group.get("batch_dims", 0)
    costs = tuple(
        param.shape[:skipped].numel()
        * rule.for_shape(param.shape[skipped:]).preconditioner.refresh_cost(param.shape[skipped:])
        for param in group["params"]
    )
    return {id(param): slot for param, slot in zip(group["params"], spread(costs, steps), strict=True)}


@lru_cache(maxsize=64)
def spread(costs: tuple[float, ...], steps: int) -> tuple[int, ...]:
    """Return a step in ``range(steps)`` for each cost, so that no step bears much more than its share.

    The largest come first, each to the step that has least so far: at most 4/3 of the best possible (Graham,
    Bounds on Multiprocessing Timing Anomalies, 1969). The largest of all is at step 0.

    >>> spread((1.0, 8.0, 3.0, 4.0), 2)
    (1, 0, 1, 1)
    """
    loads = [(0.0, step) for step in range(steps)]
    found = [0] * len(costs)
    for i in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        load, step = loads[0]
        heapq.heapreplace(loads, (load + costs[i], step))
        found[i] = step
    return tuple(found)
