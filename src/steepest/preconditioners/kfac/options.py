"""What the options of K-FAC may be."""

from steepest.hypers import Check, _integer, _number, _one_of, _optional

KFAC_CHECKS: dict[str, Check] = {
    "damping": _number(0),
    "stat_decay": _number(0, 1),
    "factored_damping": _one_of(True, False),
    "kl_clip": _optional(_number(0, ends="()")),
    "precondition_frequency": _integer(1),
    "statistics_frequency": _integer(1),
    "statistics": _one_of("both", "input"),
}
