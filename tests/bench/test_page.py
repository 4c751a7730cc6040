from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.tiny import panel, results, row
from steepest.bench import results as files
from steepest.bench.contenders import BenchError
from steepest.bench.page import markdown, update
from steepest.bench.scaling import exponent
from steepest.bench.tables import count_table, number, panel_table, remarks

FUSED = row("torch AdamW fused", [10.0, 10.0, 10.0])
ANDI = row("steepest ANDI", [6.0, 8.0, 12.0], note="a | b")
GROWTH = {
    "count": [
        {"name": "steepest ANDI", "parameters": n, "ms": n / 1e6}
        for n in (1_000_000, 10_000_000, 100_000_000)
    ],
    "side": [
        {"name": "steepest Muon", "side": 512, "ms": 1.0},
        {"name": "steepest Muon", "side": 1024, "error": "left out: it would take about 99 s"},
    ],
}


def test_a_panel_is_sorted_and_names_ratio_spread_first_step_and_memory() -> None:
    table = panel_table(panel(FUSED, ANDI))
    assert table.rows[0] == (
        "steepest ANDI",
        "8.00",
        "7.00–10.0",
        "0.800 (0.700–1.00)",
        "0.50",
        "2.00",
        "8.00",
    )
    assert table.rows[1][0] == "torch AdamW fused"
    assert "longest / median" not in table.titles
    assert "3 rounds" in table.caption


def test_schedules_and_peers_add_their_columns() -> None:
    ours = row("steepest SOAP", [1.0, 3.0], cycle=2)
    peer = row("heavyball SOAP", [4.0, 4.0], cycle=2)
    table = panel_table(panel(ours, peer))
    line = dict(zip(table.titles, table.rows[0], strict=True))
    assert line["× peer"] == "0.500"
    assert line["longest / median"] == "1.5"
    assert line["× AdamW fused"] == ""


def test_notes_and_failures_are_told() -> None:
    failed = {"name": "b", "library": "x", "method": "m", "cycle": 1, "note": "", "error": "failed: no"}
    assert remarks(panel(FUSED, ANDI, failed)) == ["steepest ANDI: a | b.", "b: failed: no."]


def test_numbers_have_three_digits() -> None:
    assert [number(v) for v in (0, 0.01234, 0.5, 1.0, 12.345, 123.4, 9876.5)] == [
        "0",
        "0.012",
        "0.500",
        "1.00",
        "12.3",
        "123",
        "9876",
    ]


def test_growth_is_fitted_on_logarithms() -> None:
    fit = exponent([(1.0, 2.0), (10.0, 20.0), (100.0, 200.0)])
    assert fit == pytest.approx((1.0, 1.0))
    assert exponent([(1.0, 1.0), (2.0, 2.0)]) is None
    assert count_table(GROWTH["count"]).rows == (("steepest ANDI", "1.00", "10.0", "100", "1.00 (r² 1.000)"),)


def test_the_page_keeps_what_is_outside_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Before\n<!-- bench:cpu begin -->\nold\n<!-- bench:cpu end -->\nAfter\n", encoding="utf-8"
    )
    found = results(panel(FUSED, ANDI), scaling=GROWTH, missing={"heavyball": "it is not installed"})
    written = update(page, found)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("Before\n")
    assert text.endswith("\nAfter\n")
    assert "old" not in text
    assert "| steepest ANDI | 8.00 | 7.00–10.0 |" in text
    assert "Not measured: heavyball; it is not installed." in text
    assert "not idle" not in text
    assert "![Time against parameters](assets/scaling_parameters_cpu.svg)" in text
    assert {p.name for p in written} == {"page.md", "scaling_parameters_cpu.svg", "scaling_side_cpu.svg"}
    before = [path.read_bytes() for path in written]
    update(page, found)
    assert [path.read_bytes() for path in written] == before


def test_a_busy_machine_is_told() -> None:
    assert "not idle: its load was up to 9.5 on 2 cores" in markdown(results(panel(FUSED, load=9.5)))


@pytest.mark.parametrize("text", [None, "no markers", "<!-- bench:cpu begin -->"])
def test_a_page_without_markers_is_left_alone(tmp_path: Path, text: str | None) -> None:
    page = tmp_path / "page.md"
    if text is not None:
        page.write_text(text, encoding="utf-8")
    with pytest.raises(BenchError, match=r"page\.md"):
        update(page, results(panel(FUSED)))
    assert text is None or page.read_text(encoding="utf-8") == text


def test_results_survive_being_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "bench.json"
    found = results(panel(FUSED, ANDI, load=None), scaling=GROWTH, import_seconds=[0.1, 1e-05, -2])
    text = files.dump(found)
    assert json.loads(text) == found
    assert '"times_ms": [10.0, 10.0, 10.0]' in text
    files.write(path, text)
    assert files.read(path) == found
    assert files.read(tmp_path / "none.json") is None


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 0}'])
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(BenchError, match=r"other\.json does not hold results"):
        files.read(path)


def test_a_panel_in_which_nothing_could_be_measured_is_told_in_words() -> None:
    failed = {
        "name": "steepest SPlus",
        "library": "steepest",
        "method": "SPlus",
        "cycle": 10,
        "error": "left out",
    }
    alone = panel(FUSED, failed | {"note": ""}, family="splus")
    assert panel_table(alone).rows == ()
    text = markdown(results(alone))
    assert "**splus**\n\n- steepest SPlus: left out." in text
    assert "| torch AdamW fused" not in text
