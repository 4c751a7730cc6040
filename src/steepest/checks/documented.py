"""Where a class of ``torch.optim`` is known to do what an ordinary check forbids, by design or limitation.

Such a check is reported as not claimed, with the reason, in an ordinary run; ``strict=True`` counts it.
"""

from __future__ import annotations

import torch

__all__ = ["documented_exception"]

_RPROP = "Rprop's lr is the initial step size of each entry, not a factor on later steps"
_ONE_GROUP = "LBFGS supports one parameter group"
_OWN_LIST = "LBFGS keeps a parameter list of its own, which copies and replaced groups miss (torch 2.13)"
_FLAT = "LBFGS flattens parameters with view, so it needs contiguous ones"
_EXCEPTIONS: dict[type[torch.optim.Optimizer], dict[str, str]] = {
    torch.optim.Rprop: {
        "step.lr_zero_does_not_move": _RPROP,
        "identity.hypers_read_at_step": _RPROP,
        "identity.groups_after_load": _RPROP,
        "schedulers.LambdaLR": _RPROP,
        "schedulers.CosineAnnealingLR": _RPROP,
        "schedulers.ReduceLROnPlateau": _RPROP,
    },
    torch.optim.LBFGS: {
        "param_groups.add": _ONE_GROUP,
        "param_groups.add_mid_training": _ONE_GROUP,
        "state.deepcopy": _OWN_LIST,
        "state.pickle": _OWN_LIST,
        "identity.param_swapped_in_group": _OWN_LIST,
        "step.none_grad_untouched": "LBFGS reads a missing gradient as zeros",
        "shapes.noncontiguous": _FLAT,
        "shapes.channels_last": _FLAT,
    },
}


def documented_exception(cls: type[torch.optim.Optimizer], name: str) -> str:
    """Why exactly this class does not claim the check ``name``, or an empty string."""
    return _EXCEPTIONS.get(cls, {}).get(name, "")
