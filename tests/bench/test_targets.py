from __future__ import annotations

import pytest

from bench.tiny import panel, results, row
from steepest.bench.targets import MET, MISSED, UNKNOWN, Ratio, verdicts

FUSED = "torch AdamW fused"


def judged(found: dict) -> dict[str, tuple[str, str]]:
    return {v.target: (v.found, v.verdict) for v in verdicts(found)}


@pytest.mark.parametrize(("ours", "verdict"), [(8.0, MET), (8.1, MISSED)])
def test_a_ratio_is_met_up_to_its_limit(ours: float, verdict: str) -> None:
    found = results(panel(row(FUSED, [10.0] * 5), row("steepest ANDI", [ours] * 5)))
    assert judged(found)[f"steepest ANDI ≤ 0.8 × {FUSED}, gpt"][1] == verdict


def test_the_set_and_the_row_must_be_there() -> None:
    elsewhere = results(panel(row(FUSED, [10.0]), row("steepest ANDI", [1.0]), set="resnet"))
    told = judged(elsewhere)
    assert told[f"steepest ANDI ≤ 0.8 × {FUSED}, gpt"] == ("", UNKNOWN)
    assert told[f"steepest ANDI ≤ 1 × {FUSED}, resnet"] == ("0.10 (0.10–0.10)", MET)
    failed = {"name": "steepest ANDI", "library": "steepest", "method": "ANDI", "cycle": 1, "error": "x"}
    assert Ratio("steepest ANDI", "gpt", 1, FUSED).judge(results(panel(failed))).verdict == UNKNOWN


def test_kronecker_methods_are_held_against_their_fastest_peer() -> None:
    rows = [
        row("steepest SOAP", [1.0, 3.0] * 2, cycle=2),
        row("heavyball SOAP", [9.0] * 4, cycle=2),
        row("pytorch-optimizer SOAP", [2.0, 6.0] * 2, cycle=2),
    ]
    told = judged(results(panel(*rows, family="soap")))
    target = "steepest SOAP ≤ 0.5 × the fastest peer with the same rule, gpt"
    assert told[target] == ("0.50 (0.50–0.50), pytorch-optimizer SOAP", MET)


def test_the_slowest_first_step_counts_and_eigensolvers_do_not() -> None:
    plain = panel(row("steepest ANDI", [1.0], first_ms=501.0), row("steepest Adam", [1.0], first_ms=1101.0))
    solver = panel(row("steepest SOAP", [1.0], first_ms=9e9), family="soap")
    words, verdict = next(found for name, found in judged(results(plain, solver)).items() if "First" in name)
    assert words == "1.10 s, steepest Adam, the slowest of 2"
    assert verdict == MISSED


def test_import_and_orthogonality_come_from_their_measurements() -> None:
    errors = [
        {"name": "steepest Muon", "shape": [2, 4], "rms": 0.1, "worst": 0.2},
        {"name": "torch Muon", "shape": [2, 4], "rms": 0.3, "worst": 0.4},
    ]
    told = judged(results(import_seconds=[0.1, 0.2, 0.12], orthogonality=errors))
    assert told["`import steepest` ≤ 0.15 s on top of torch"] == ("0.120 s (median of 3)", MET)
    assert ("0.1 and 0.3 on 2 × 4", MET) in told.values()


def test_cuda_has_targets_of_its_own() -> None:
    rows = [row(FUSED, [1.0]), row("steepest ANDI", [0.7]), row("steepest ANDI unchecked", [0.0199])]
    told = judged(results(panel(*rows), device="cuda", copy_bytes_per_second=1.25e12))
    assert told[f"steepest ANDI ≤ 0.75 × {FUSED}, gpt"][1] == MET
    # 20 bytes for each of a million parameters at 1.25 TB/s are 0.016 ms
    assert told["steepest ANDI ≥ 80 % of copy bandwidth, gpt"] == ("80 % of 1250.0 GB/s", MET)
