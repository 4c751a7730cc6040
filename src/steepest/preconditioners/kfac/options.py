"""What the options of K-FAC may be."""

from steepest.hypers import Check, integer, number, one_of, optional

KFAC_CHECKS: dict[str, Check] = {
    "damping": number(0),
    "stat_decay": number(0, 1),
    "factored_damping": one_of(True, False),
    "kl_clip": optional(number(0, ends="()")),
    "precondition_frequency": integer(1),
    "statistics_frequency": integer(1),
    "statistics": one_of("both", "input"),
}
