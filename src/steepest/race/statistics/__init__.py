"""What a set of run records says: tuned losses, intervals, paired tests, speed and cost.

Everything here is a pure function of the records; nothing is read or written. The choices that matter:

Tuning criterion
    The validation loss at the end of a run (`final_loss`). The best lr is the one with the lowest mean over
    its tuning runs; an lr at which any tuning run diverged is not eligible.
Comparison
    Only the runs of phase "final" at that lr count. The run that won the sweep is not among them, so the
    minimum over the sweep does not flatter anyone.
Interval
    Student's t over seeds: mean +- t(0.975, n-1) s / sqrt(n). With three seeds t is 4.30; with one seed
    there is no interval.
Pair verdict
    Two-sided paired t-test on loss(A) - loss(B) over the seeds that both finished, corrected by Holm over
    all pairs tested on the task. "A better" or "B better" only if the corrected p is below `alpha`;
    otherwise "no detectable difference", which is not a claim that the two are equal. Fewer than two shared
    seeds: no test. Three seeds leave two degrees of freedom: alone, a difference must be 2.5 times the
    standard deviation of the paired differences, as the clearest of 15 pairs 10 times.
Divergence
    A final run that diverged is a result, not a missing value: an optimizer with one ranks below all
    without, and is never called better than an optimizer that finished that seed. One that diverged at
    every lr, or in every final run, loses without a test to one that finished all of its final runs.
    A run that failed (raised an error) is a missing seed.
Tunability
    Decades of lr around the best over which the tuning loss stays within `tolerance` of the optimizer's own
    best (best + tolerance * |best|), on the line through (log10 lr, loss). Diverged neighbours end the
    region at the last lr that worked; a region that runs into the edge of the grid is a lower bound.
Target
    The tuned reference optimizer's mean final loss. Steps to it are read off the mean validation curve by
    linear interpolation, at the first crossing. Seconds are steps times the time of one training step: the
    optimizer's own median step, and for forward and backward, which are the same work for all, the median
    over all optimizers of the task, so that a busy moment of the machine is not counted against one of
    them. Evaluation and data loading are left out.

Event
    Records are compared with each other only if they share task, preset, protocol and the engine's options
    (`steepest.race.statistics.events`).
Claim
    What a paper says, put to the test by paired t-intervals (`steepest.race.statistics.claims`).
Performance profile
    The share of events on which an optimizer is within a factor of the best
    (`steepest.race.statistics.profile`).
"""

from steepest.race.statistics.claims import DEVIATION, HOLDS, REFUTED, UNDECIDED, judge, verdict_of
from steepest.race.statistics.comparison import Comparison, ComparisonRow, compare_folders, compare_optimizers
from steepest.race.statistics.curves import first_crossing, mean_curve
from steepest.race.statistics.events import Event
from steepest.race.statistics.formatting import (
    TABLE_COLUMNS,
    decimals,
    format_against,
    format_decades,
    format_estimate,
    format_interval,
    format_lr,
    format_number,
    format_signed,
    format_target,
    table_rows,
)
from steepest.race.statistics.inference import detectable_ratio, estimate, holm, paired_p
from steepest.race.statistics.profile import Profile, loss_costs, performance_profiles, step_costs
from steepest.race.statistics.results import (
    A_BETTER,
    B_BETTER,
    NO_DIFFERENCE,
    ClaimResult,
    Curve,
    Estimate,
    OptimizerSummary,
    OverallRow,
    PairResult,
    Problem,
    Summary,
    SweepPoint,
    TaskSummary,
    Tunability,
)
from steepest.race.statistics.summary import standings, summarize
from steepest.race.statistics.tuning import tunability

__all__ = [
    "A_BETTER",
    "B_BETTER",
    "DEVIATION",
    "HOLDS",
    "NO_DIFFERENCE",
    "REFUTED",
    "TABLE_COLUMNS",
    "UNDECIDED",
    "ClaimResult",
    "Comparison",
    "ComparisonRow",
    "Curve",
    "Estimate",
    "Event",
    "OptimizerSummary",
    "OverallRow",
    "PairResult",
    "Problem",
    "Profile",
    "Summary",
    "SweepPoint",
    "TaskSummary",
    "Tunability",
    "compare_folders",
    "compare_optimizers",
    "decimals",
    "detectable_ratio",
    "estimate",
    "first_crossing",
    "format_against",
    "format_decades",
    "format_estimate",
    "format_interval",
    "format_lr",
    "format_number",
    "format_signed",
    "format_target",
    "holm",
    "judge",
    "loss_costs",
    "mean_curve",
    "paired_p",
    "performance_profiles",
    "standings",
    "step_costs",
    "summarize",
    "table_rows",
    "tunability",
    "verdict_of",
]
