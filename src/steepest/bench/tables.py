"""Results as rows of text, for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from steepest.bench.contenders import REFERENCE
from steepest.bench.scaling import BY_COUNT, BY_SIDE, exponent
from steepest.bench.summary import (
    Spread,
    beyond_seconds,
    fastest_peer,
    jump,
    measured,
    ratio,
    step_ms,
)
from steepest.bench.targets import UNKNOWN, verdicts

BUSY = 1.25
"""Load for each core above which others were at work; the measurement itself keeps every core busy."""


@dataclass(frozen=True)
class Table:
    """A caption, column titles, rows; ``words`` counts the leading columns of text, not of numbers."""

    caption: str
    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1

    def markdown(self) -> str:
        """Return the table in Markdown, its caption above."""
        marks = ["---" if i < self.words else "---:" for i in range(len(self.titles))]
        lines = [self.titles, marks, *self.rows]
        body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines)
        return f"**{self.caption}**\n\n{body}" if self.caption else body


def panel_table(panel: dict[str, Any]) -> Table:
    """Return the table of one family on one set, fastest first.

    Ratios are medians, over rounds, of two times in one round, with quartiles in brackets. "× peer" is the
    ratio to the fastest peer with the same rule.
    """
    rows = sorted(measured(panel), key=lambda row: step_ms(row).middle)
    if len(rows) == 1 < len(panel["rows"]):
        rows = []  # the reference beside nothing
    by_name = {row["name"]: row for row in rows}
    scheduled = any(row["cycle"] > 1 for row in rows)
    matched = any(row["library"] == "steepest" and fastest_peer(row, rows) for row in rows)
    titles = ["optimizer", "step ms", "quartiles", "× AdamW fused"]
    titles += ["× peer"] * matched + ["longest / median"] * scheduled
    titles += ["first step, + s", "extra MB", "state B/param"]
    lines = []
    for row in rows:
        step = step_ms(row)
        quartiles = "" if step.low == step.high else f"{number(step.low)}–{number(step.high)}"
        line = [row["name"], number(step.middle), quartiles]
        line.append(_ratio(ratio(row, by_name[REFERENCE])) if REFERENCE in by_name else "")
        if matched:
            peer = fastest_peer(row, rows) if row["library"] == "steepest" else None
            line.append(number(ratio(row, peer).middle) if peer else "")
        if scheduled:
            line.append(f"{jump(row):.1f}" if row["cycle"] > 1 else "")
        line += [
            f"{max(0.0, beyond_seconds(row)):.2f}",
            number(row["peak_bytes"] / 1e6),
            number(row["state_bytes_per_parameter"]),
        ]
        lines.append(tuple(line))
    counted = max((len(row["times_ms"]) for row in rows), default=0)
    caption = f"{panel['title']}; {panel['family']}" + (f", {counted} rounds" if counted else "")
    if not panel["complete"]:
        caption += ", stopped early"
    return Table(caption, tuple(titles), tuple(lines))


def remarks(panel: dict[str, Any]) -> list[str]:
    """Return what the table does not say: notes on rows, and rows that could not be measured."""
    found: dict[str, list[str]] = {}
    for row in panel["rows"]:
        text = row["error"] if row.get("error") else row["note"]
        if text:
            found.setdefault(text, []).append(row["name"])
    return [f"{', '.join(names)}: {text}." for text, names in found.items()]


def target_table(results: dict[str, Any], *, unknown: bool = True) -> Table:
    """Return the targets with what was measured and whether they are met; ``unknown`` ones too, or not."""
    found = [v for v in verdicts(results) if unknown or v.verdict != UNKNOWN]
    rows = tuple((v.target, v.found, v.verdict) for v in found)
    return Table("", ("target", "measured (quartiles)", "verdict"), rows, words=3)


def count_table(points: Sequence[dict[str, Any]]) -> Table:
    """Return step times against the number of parameters, with the fitted exponent."""
    counts = sorted({p["parameters"] for p in points})
    titles = ("optimizer", *(f"{n / 1e6:.0f}M, ms" for n in counts), "time ∝ parameters^p")
    return _growth(points, "parameters", counts, titles, BY_COUNT)


def side_table(points: Sequence[dict[str, Any]]) -> Table:
    """Return step times against the side of a matrix, with the exponent fitted from 512 on."""
    sides = sorted({p["side"] for p in points})
    titles = ("optimizer", *(f"{n}, ms" for n in sides), "time ∝ side^p, from 512")
    return _growth(points, "side", sides, titles, BY_SIDE, least=512)


def about(results: dict[str, Any]) -> list[str]:
    """Return where the figures come from, a sentence a line."""
    told, found = results["machine"], results["versions"]
    chip = f"{told['cpu']}, {told['cores']} cores, {told['threads']} threads, {told['ram_gib']} GiB"
    if "gpu" in told:
        chip = f"{told['gpu']}, {told['gpu_gib']} GiB, CUDA {told['cuda']}; {chip}"
    packages = ", ".join(f"{name} {version}" for name, version in found.items())
    native = f"Native CPU kernels: {told['native']}."
    lines = [f"Machine: {chip}.", native, f"Versions: {packages}.", f"Command: {_command(results)}."]
    loads = [panel["load"] for panel in results["panels"] if panel["load"] is not None]
    if loads and max(loads) > BUSY * told["cores"]:
        lines.append(
            f"The machine was not idle: its load was up to {max(loads)} on {told['cores']} cores when a "
            "panel began. These figures are provisional, ratios and verdicts included."
        )
    if results.get("copy_bytes_per_second"):
        speed = results["copy_bytes_per_second"] / 1e9
        lines.append(f"Copying 256 MiB reads and writes {speed:.1f} GB/s in all.")
    lines += [f"Not measured: {name}; {why}." for name, why in results["missing"].items()]
    return lines


def _command(results: dict[str, Any]) -> str:
    """The command line; where figures come from several runs, how they were put together."""
    return results.get("provenance") or f"`{results['command']}`"


def number(value: float) -> str:
    """Return a number with three significant digits, at most three decimals, whole numbers in full."""
    if value >= 100 or value == 0:
        return f"{value:.0f}"
    return f"{value:.3f}" if value < 1 else f"{value:#.3g}".rstrip(".")


def _growth(
    points: Sequence[dict[str, Any]],
    key: str,
    values: Sequence[int],
    titles: tuple[str, ...],
    order: Sequence[str],
    least: int = 0,
) -> Table:
    lines = []
    for name in order:
        own = {p[key]: p for p in points if p["name"] == name}
        if not own:
            continue
        known = [(x, p["ms"]) for x, p in own.items() if "ms" in p]
        fit = exponent([point for point in known if point[0] >= least])
        cells = [number(own[x]["ms"]) if x in own and "ms" in own[x] else "–" for x in values]
        lines.append((name, *cells, f"{fit[0]:.2f} (r² {fit[1]:.3f})" if fit else "–"))
    return Table("", titles, tuple(lines))


def _ratio(found: Spread) -> str:
    alone = number(found.middle)
    return alone if found.low == found.high else f"{alone} ({number(found.low)}–{number(found.high)})"
