"""The sentences of the report: what held, in plain words, and how sure it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from steepest.race.statistics import (
    Estimate,
    OptimizerSummary,
    Summary,
    TaskSummary,
    decimals,
    detectable_ratio,
    format_estimate,
    format_number,
)


def listed(names: Sequence[str]) -> str:
    """Join names as in a sentence: a, b and c."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else ""


def counted(n: int, noun: str) -> str:
    """Write a count with its noun: 1 seed, 3 seeds."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def metric_name(key: str) -> str:
    """Turn a metric's key into words."""
    return key.removeprefix("val_").replace("_", " ")


def column(values: Sequence[Estimate | None], *, percent: bool = False) -> list[str]:
    """Format the estimates of one column of a table, with as many decimals as most of them deserve."""
    if percent:
        values = [value and _percentage(value) for value in values]
    places = sorted(p for value in values if (p := decimals(value)) is not None)
    common = places[(len(places) - 1) // 2] if places else None
    unit = " %" if percent else ""

    def places_of(value: Estimate) -> int | None:
        """The common number, or the value's own if too little would be left of it."""
        small = common is not None and abs(value.mean) < 10 ** (1 - common)
        return decimals(value) if small else common

    return ["–" if v is None else format_estimate(v, places_of(v)) + unit for v in values]


def _percentage(value: Estimate) -> Estimate:
    low, high = (None if end is None else 100 * end for end in (value.low, value.high))
    return Estimate(100 * value.mean, low, high, value.n)


MANY = 3


def headline(summary: Summary, tasks: Sequence[TaskSummary] | None = None) -> str:
    """One sentence on every task, or on the whole where there are many; `tasks` leaves out the others."""
    tasks = summary.tasks if tasks is None else tasks
    ranked = [(task, winners) for task in tasks if (winners := leaders(task))]
    if not ranked:
        return "No finished comparison yet." if tasks else "No runs recorded yet."
    if len(tasks) > MANY:
        count = Counter(o.name for _, winners in ranked for o in winners)
        led = [f"{name} on {n}" for name, n in count.most_common()]
        return f"Lowest loss on {counted(len(ranked), 'task')}: {', '.join(led)}."
    parts: list[str] = []
    for task, winners in ranked:
        best = winners[0]
        beaten = [
            o for o in task.optimizers if o is not best and task.pair(best.name, o.name).better == best.name
        ]
        others = len(task.optimizers) - 1
        if others == 0:
            parts.append(f"On {task.name}, {best.name} ran alone.")
        elif len(beaten) == others:
            parts.append(f"On {task.name}, {best.name} was detectably better than every other optimizer.")
        else:
            sure = (
                f"detectably better than {len(beaten)} of {others} others"
                if beaten
                else "not detectably better than any other"
            )
            lowest = (
                "lowest loss"
                if len(winners) == 1
                else f"lowest loss, shared with {listed([o.name for o in winners[1:]])}"
            )
            parts.append(f"On {task.name}, {best.name} had the {lowest}, {sure}.")
    return " ".join(parts)  # fmt: skip


def leaders(task: TaskSummary) -> list[OptimizerSummary]:
    """The optimizers of rank 1."""
    return [o for o in task.optimizers if o.rank == 1]


def task_text(task: TaskSummary, reference: str) -> list[str]:
    """Two or three sentences on one task: who led, by how much, and which differences are real."""
    first = leaders(task)
    if not first:
        return ["No optimizer has a finished final run on this task yet, so there is no ranking."]
    best = first[0]
    seeds = (
        "over 1 seed" if best.loss and best.loss.n == 1 else f"over {best.loss.n if best.loss else 0} seeds"
    )
    sentence = f"{best.name} ended with the lowest mean validation loss, {format_estimate(best.loss)} {seeds}"
    if best.diverged_seeds:
        sentence += f", but diverged on {counted(len(best.diverged_seeds), 'seed')}"
    ref = next((o for o in task.optimizers if o.name == reference), None)
    if ref is not None and ref is not best and ref.loss and best.loss:
        sentence += f"; {reference} ended at {format_number(ref.loss.mean, 4)}"
        detected = task.pair(best.name, reference).better == best.name
        if detected and ref.loss.mean > 0 and best.loss.mean > 0:
            sentence += (
                f", so {best.name} is {format_number(100 * (1 - best.loss.mean / ref.loss.mean), 2)} % lower"
            )
    sentences = [sentence + "."]
    others = [o.name for o in task.optimizers if o is not best]
    better = [n for n in others if task.pair(best.name, n).better == best.name]
    unsure = [n for n in others if n not in better and task.pair(best.name, n).p is not None]
    untested = [n for n in others if n not in better and n not in unsure]
    if better:
        sentences.append(f"It is detectably better than {listed(better)}.")
    if unsure:
        sentences.append(f"Against {listed(unsure)} no difference is detectable.")
    if untested:
        sentences.append(f"There was nothing to test it on against {listed(untested)}.")
    return sentences


def power_text(task: TaskSummary, alpha: float) -> str:
    """What the tests on this task can and cannot see."""
    if not task.pairs:
        return "There is nothing to compare: only one optimizer has runs on this task."
    if not task.tests:
        return "No pair shares two seeds, so no test was possible. The order above is what happened, no more."
    n = max(len(pair.seeds) for pair in task.pairs)
    first, last = detectable_ratio(n, task.tests, alpha), detectable_ratio(n, 1, alpha)
    text = (
        f"{counted(task.tests, 'pair')} tested on {n} paired seeds. With the correction, the "
        f"clearest difference is called if it is at least {format_number(first, 2)} times the standard "
        f"deviation of the paired differences over seeds, the least clear one at {format_number(last, 2)} "
        "times."
    )
    if n <= 3:
        text += (
            " That is a high bar: so few seeds show large, steady differences and nothing else, and a "
            "missing verdict is weak evidence of equality. More seeds lower the bar quickly."
        )
    return text


def definitions(summary: Summary) -> list[tuple[str, str]]:
    """What each number of the report means, and the rule behind the verdicts."""
    ref = summary.reference
    return [
        (
            "Validation loss",
            "Loss on held-out data after the last step. The lr is tuned on it too, so it is slightly "
            "optimistic for all alike. Mean over the final seeds ± half the 95 % t-interval.",
        ),
        (
            "Final seeds",
            "Runs at the best lr, separate from the sweep. A seed fixes the initial weights and the order of "
            "the data, so runs of two optimizers with one seed form a pair.",
        ),
        (
            "Second stage",
            "Where asked for, every optimizer then gets the same number of trials in which momentum, betas "
            "or weight decay vary too. The final runs are at the best of both stages.",
        ),
        (
            "Ranking",
            "By mean validation loss. An optimizer with a diverged final run ranks below all without. "
            "A failed run is a missing seed.",
        ),
        (
            "Verdict",
            "Paired two-sided t-test over shared seeds, corrected by Holm's method over all pairs of the "
            f"task. A difference is called if the corrected p is below {summary.alpha:g}; otherwise the "
            "verdict is “no detectable difference”, which does not mean equal. With one shared seed "
            "nothing is tested. "
            "An optimizer that diverged on a seed that the other finished is never called better; one that "
            "diverged throughout loses to one that finished everything.",
        ),
        (
            "Smallest callable",
            "The mean difference that this pair would have needed at Holm's strictest threshold, given its "
            "spread over seeds.",
        ),
        (
            "Good lr range",
            "Powers of ten of lr, around the best, over which the tuning loss stays within "
            f"{100 * summary.tolerance:.0f} % of the optimizer's own best, by interpolation. "
            "≥: it reaches the edge of the grid.",
        ),
        (
            f"Steps to {ref}'s final loss",
            "First crossing of the mean validation curve, interpolated, as steps and as a share of "
            f"{ref}'s whole run (its equivalent budget): 60 % means the same loss for 60 % of the steps. "
            f"A noisy curve can dip below early, {ref}'s own too.",
        ),
        (
            "Seconds",
            "Steps times the time of one: the optimizer's median step, and one median for forward and "
            "backward that is common to all. Evaluation and data loading are left out. It holds for this "
            "hardware and this model size.",
        ),
        ("Optimizer state", "Bytes the optimizer keeps per parameter of the model, at the end of a run."),
        (
            "Claim",
            "What a paper says, as a comparison fixed before the race. The paired differences over seeds in "
            "favour of the first named have a 95 % t-interval [low, high]; the margin m is the difference up "
            "to which results count as equal. “Better” holds if low > m and does not hold if high < m; “no "
            "worse” holds if low ≥ −m and does not hold if high < −m; “equal” holds if the interval lies "
            "within ±m and does not hold if it lies wholly outside; anything else is undecided. One seed "
            "decides nothing. Deviations between coordinates count up to 1. An optimizer that diverged "
            "throughout loses to one that finished everything; one that diverged on some seeds gets no "
            "verdict in its favour. Each claim is judged by itself, without correction for their number.",
        ),
        (
            "Performance profile",
            "Dolan and Moré's: the share of tasks on which the ratio of an optimizer's cost to the lowest "
            "cost of any is at most τ. Costs are the mean final validation loss, or the steps to "
            f"{ref}'s final loss; infinite where there is no result, or where a final run diverged.",
        ),
        (
            "Preset and protocol",
            "A preset is a task's size (cpu or full). The fair protocol tunes every optimizer with the same "
            "number of runs; the paper protocol repeats the settings of the source, who is tuned and who is "
            "not among them. Results of different presets, protocols or engine options are never mixed.",
        ),
    ]
