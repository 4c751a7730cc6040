"""Numbers and verdicts as short text, and the ranked table in text."""

from __future__ import annotations

import math

from steepest.race.statistics.results import (
    A_BETTER,
    B_BETTER,
    NO_DIFFERENCE,
    Estimate,
    OptimizerSummary,
    Summary,
    TaskSummary,
    Tunability,
)


def format_number(value: float | None, digits: int = 3) -> str:
    """Format to `digits` significant digits, without exponents where a person would write none."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "∞" if value > 0 else "nan"
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if -5 <= power < 6:
        return f"{value:.{max(0, digits - 1 - power)}f}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def format_lr(lr: float | None) -> str:
    """Format a learning rate: up to three significant digits, no trailing zeros."""
    if lr is None:
        return "–"
    text = f"{lr:.3g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        return f"{mantissa}e{int(exponent)}"
    return text


def decimals(value: Estimate | None) -> int | None:
    """Return how many decimals show two significant digits of the half-width, or None without one."""
    half = value.half_width if value else None
    if half is None or not math.isfinite(half) or half < 1e-7:
        return None
    return max(0, 1 - math.floor(math.log10(float(f"{half:.1e}"))))


def format_estimate(value: Estimate | None, places: int | None = None) -> str:
    """Format mean ± half-width with `places` decimals; by default the half-width gets two digits."""
    if value is None:
        return "–"
    own = decimals(value)
    places = own if places is None else places
    if places is None:
        return format_number(value.mean, 4)
    if places > 6 or abs(value.mean) >= 1e6:
        return " ± ".join(format_number(v, 2) for v in (value.mean, value.half_width) if v is not None)
    if own is None or value.half_width is None:
        return f"{value.mean:.{places}f}"
    return f"{value.mean:.{places}f} ± {value.half_width:.{places}f}"


def format_interval(value: Estimate | None) -> str:
    """Format a difference: mean with its sign, and the interval in brackets."""
    if value is None:
        return "–"
    places = decimals(value)
    if value.low is None or value.high is None:
        return format_signed(value.mean)
    if places is None or places > 6:
        return f"{format_signed(value.mean)} [{format_signed(value.low)}, {format_signed(value.high)}]"
    mean, low, high = (f"{v:+.{places}f}".replace("-", "−") for v in (value.mean, value.low, value.high))
    return f"{mean} [{low}, {high}]"


def format_signed(value: float) -> str:
    """Format a difference to three digits, with its sign."""
    sign = "−" if value < 0 else "+" if value > 0 else ""
    return sign + format_number(abs(value))


def format_decades(region: Tunability | None) -> str:
    """Format the width of the good lr region."""
    if region is None:
        return "–"
    width = "< 0.1" if region.decades < 0.05 else f"{region.decades:.1f}"
    return f"{'≥ ' if region.at_least and region.decades >= 0.05 else ''}{width} decades"


def format_target(task: TaskSummary, o: OptimizerSummary, reference: str) -> str:
    """Format the steps to the reference's final loss, as a share of its budget."""
    if task.target is None or o.loss is None:
        return "–"
    if o.name == reference:
        return "sets the target"
    if o.steps_to_target is None:
        return "not reached"
    share = "" if o.budget is None else f" ({100 * o.budget:.0f} %)"
    return f"{o.steps_to_target:.0f} steps{share}"


def format_against(task: TaskSummary, o: OptimizerSummary, reference: str) -> str:
    """Format the verdict of `o` against the reference: "better", "worse", "no detectable difference"."""
    if o.name == reference or not any(other.name == reference for other in task.optimizers):
        return "–"
    pair = task.pair(o.name, reference)
    if pair.verdict == NO_DIFFERENCE and pair.p is None:
        return "not testable"
    return {A_BETTER: "better", B_BETTER: "worse"}.get(pair.verdict, pair.verdict)


TABLE_COLUMNS = (
    "task",
    "rank",
    "optimizer",
    "val loss",
    "metric",
    "best lr",
    "good lr range",
    "to target",
    "step ms",
    "state B/param",
    "vs reference",
    "diverged",
    "failed",
)


def table_rows(summary: Summary) -> list[dict[str, str]]:
    """Return one row of text per task and optimizer, best first, with the keys `TABLE_COLUMNS`."""
    rows: list[dict[str, str]] = []
    for task in summary.tasks:
        for o in task.optimizers:
            shown = sorted(o.metrics.items(), key=lambda item: item[0] != task.headline)
            metric = next(iter(shown), None)
            cells = (
                task.name,
                "–" if o.rank is None else str(o.rank),
                o.name,
                format_estimate(o.loss) if o.loss else (o.note or "no final result"),
                f"{metric[0].removeprefix('val_')} {format_number(metric[1].mean)}" if metric else "–",
                format_lr(o.best_lr) + (" (edge)" if o.best_at_edge else ""),
                format_decades(o.tunability),
                format_target(task, o, summary.reference),
                format_number(o.step_ms),
                format_number(o.state_bytes_per_param),
                format_against(task, o, summary.reference),
                str(o.diverged),
                str(o.failed),
            )
            rows.append(dict(zip(TABLE_COLUMNS, cells, strict=True)))
    return rows
