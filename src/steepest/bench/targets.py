"""The library's own speed targets, judged from results: nothing here is written by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steepest.bench.contenders import KRONECKER
from steepest.bench.summary import Spread, beyond_seconds, fastest_peer, measured, ratio

MET, MISSED, UNKNOWN = "met", "not met", "not measured"
IMPORT_SECONDS = 0.15
FIRST_STEP_SECONDS = 1.0
ANDI_WORDS = 5
"""Words of 4 bytes a parameter that ANDI has to move: gradient, momentum and weight in, the last two out."""


@dataclass(frozen=True)
class Verdict:
    """A target, what was found, and how the two compare."""

    target: str
    found: str
    verdict: str


@dataclass(frozen=True)
class Ratio:
    """Ours over theirs on a set is at most ``limit``; without ``theirs``, over the fastest peer."""

    name: str
    set: str
    limit: float
    theirs: str | None = None
    label: str | None = None

    def judge(self, results: dict[str, Any]) -> Verdict:
        """Return the verdict from the panel that holds both."""
        against = self.theirs or "the fastest peer with the same rule"
        target = f"{self.label or self.name} ≤ {self.limit:g} × {against}, {self.set}"
        for panel in results["panels"]:
            rows = {row["name"]: row for row in measured(panel)}
            ours = rows.get(self.name)
            if panel["set"] != self.set or ours is None:
                continue
            other = rows.get(self.theirs) if self.theirs else fastest_peer(ours, list(rows.values()))
            if other is not None:
                found = ratio(ours, other)
                words = _words(found) + ("" if self.theirs else f", {other['name']}")
                return Verdict(target, words, MET if found.middle <= self.limit else MISSED)
        return Verdict(target, "", UNKNOWN)


FUSED, MUON = "torch AdamW fused", "torch Muon"
CPU = (
    Ratio("steepest ANDI", "gpt", 0.8, FUSED),
    Ratio("steepest ANDI unchecked", "gpt", 0.8, FUSED),
    Ratio("steepest ANDI", "resnet", 1.0, FUSED),
    Ratio("steepest ANDI", "small", 1.0, FUSED),
    Ratio("steepest Muon", "gpt", 0.55, MUON),
    Ratio("steepest MuAdam", "gpt", 0.7, MUON),
    *(Ratio(f"steepest {method}", "gpt", 0.5) for method in ("SOAP", "Shampoo", "KLShampoo", "SPlus")),
)
CUDA = (
    Ratio("steepest ANDI", "gpt", 0.75, FUSED),
    Ratio("steepest Muon", "gpt", 0.6, MUON),
)


def verdicts(results: dict[str, Any]) -> list[Verdict]:
    """Return the verdicts that the device of these results can give."""
    cuda = results["machine"]["device"] == "cuda"
    found = [target.judge(results) for target in (CUDA if cuda else CPU)]
    if cuda:
        found.append(_bandwidth(results))
    return [*found, _orthogonality(results), _first_step(results), _import(results)]


def bandwidth_share(results: dict[str, Any]) -> tuple[float, str] | None:
    """Return the share of the copy bandwidth that ANDI's least traffic reaches on the GPT, and words."""
    copied = results.get("copy_bytes_per_second")
    for panel in results["panels"]:
        for row in measured(panel):
            if panel["set"] == "gpt" and row["name"] == "steepest ANDI unchecked" and copied:
                fastest = 4 * ANDI_WORDS * panel["parameters"] / copied
                share = fastest / (sorted(row["times_ms"])[len(row["times_ms"]) // 2] / 1e3)
                return share, f"{100 * share:.0f} % of {copied / 1e9:.1f} GB/s"
    return None


def _bandwidth(results: dict[str, Any]) -> Verdict:
    target, found = "steepest ANDI ≥ 80 % of copy bandwidth, gpt", bandwidth_share(results)
    if found is None:
        return Verdict(target, "", UNKNOWN)
    return Verdict(target, found[1], MET if found[0] >= 0.8 else MISSED)


def _orthogonality(results: dict[str, Any]) -> Verdict:
    target = "steepest Muon's orthogonality error no larger than torch Muon's, every shape"
    errors: dict[str, dict[str, float]] = {}
    for entry in results.get("orthogonality", []):
        shape = " × ".join(str(side) for side in entry["shape"])
        errors.setdefault(shape, {})[entry["name"]] = entry["rms"]
    if not errors:
        return Verdict(target, "", UNKNOWN)
    words = [f"{e['steepest Muon']:.2g} and {e['torch Muon']:.2g} on {s}" for s, e in errors.items()]
    good = all(e["steepest Muon"] <= e["torch Muon"] for e in errors.values())
    return Verdict(target, "; ".join(words), MET if good else MISSED)


def _first_step(results: dict[str, Any]) -> Verdict:
    target = (
        f"First step of every optimizer ≤ {FIRST_STEP_SECONDS:g} s beyond a steady one, gpt, "
        "Kronecker methods (eigensolvers) excepted"
    )
    found = {
        row["name"]: beyond_seconds(row)
        for panel in results["panels"]
        if panel["set"] == "gpt" and panel["family"] not in KRONECKER
        for row in measured(panel)
        if row["library"] == "steepest"
    }
    if not found:
        return Verdict(target, "", UNKNOWN)
    slowest = max(found, key=lambda name: found[name])
    words = f"{found[slowest]:.2f} s, {slowest}, the slowest of {len(found)}"
    return Verdict(target, words, MET if found[slowest] <= FIRST_STEP_SECONDS else MISSED)


def _import(results: dict[str, Any]) -> Verdict:
    target = f"`import steepest` ≤ {IMPORT_SECONDS:g} s on top of torch"
    times = results.get("import_seconds")
    if not times:
        return Verdict(target, "", UNKNOWN)
    middle = sorted(times)[len(times) // 2]
    words = f"{middle:.3f} s (median of {len(times)})"
    return Verdict(target, words, MET if middle <= IMPORT_SECONDS else MISSED)


def _words(found: Spread) -> str:
    return f"{found.middle:.2f} ({found.low:.2f}–{found.high:.2f})"
