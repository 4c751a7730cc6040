"""What the report says across tasks, protocols and coordinates, and its tables for other programs."""

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
from race_pages import Document, pages, prose, race

from steepest.race.paper import Claim
from steepest.race.records import RunRecord
from steepest.race.report import write_report
from steepest.race.report.page import page_names, picture_name
from steepest.race.statistics import summarize

CLAIMS = (
    Claim("the paper, figure 3", "AdamW is <lower> than ANDI", "AdamW", "better", "ANDI"),
    Claim("the paper, figure 3", "SGD keeps up", "SGD", "no worse", "AdamW", "val_accuracy", 0.001),
    Claim("the paper, table 2", "another one wins", "Lion", "better", "AdamW"),
)


def claiming(records: list[RunRecord], **changes) -> list[RunRecord]:
    stated = {
        "claims": [claim.to_dict() for claim in CLAIMS],
        "headline": "val_accuracy",
        "description": "words",
    }
    return [
        replace(r, key=f"{r.key}{sorted(changes)}", settings={**r.settings, **stated}, **changes)
        for r in records
    ]


def both_protocols() -> list[RunRecord]:
    return [*claiming(race("digits", "text")), *claiming(race("digits"), protocol="paper")]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_claims_stand_on_the_index_and_on_the_pages():
    found = pages(both_protocols())
    assert list(found) == [
        "index.html",
        "digits-fair-protocol.html",
        "digits-paper-protocol.html",
        "text.html",
    ]
    index = found["index.html"].prose
    assert "Of 9 claims of papers put to the test, 3 held, 3 did not, and 3 could not be decided." in index
    assert index.count("“AdamW is <lower> than ANDI”") == 3
    for name in ("digits-fair-protocol.html", "digits-paper-protocol.html", "text.html"):
        page = found[name].prose
        for words in (
            "✓ holds",
            "✕ does not hold",
            "? undecided",
            "Put to the test: SGD no worse than AdamW in accuracy, margin 0.001",
            "the paper, figure 3",
            "paired over seeds 1, 2, 3",
            "Lion not run",
        ):
            assert words in page, words


def test_the_rule_of_the_verdicts_is_on_the_page():
    words = prose(both_protocols())
    assert "“Better” holds if low > m and does not hold if high < m" in words


def test_both_protocols_stand_side_by_side_and_are_not_counted_together():
    index = pages(both_protocols())["index.html"].prose
    assert "Protocols side by side" in index
    assert "lr, fair" in index
    assert "lr, paper" in index
    assert "cpu preset, fair protocol" in index
    assert "cpu preset, paper protocol" not in index  # a single task: nothing to count
    assert "Protocols side by side" not in pages(race("digits", "text"))["index.html"].prose


def test_budgets_and_profiles_on_the_index():
    index = pages(race("digits", "text"))["index.html"]
    assert {"profile", "budget", "across", "tasks"} <= set(index.ids)
    assert "2 of 2" in index.prose
    assert "time " in index.prose
    lone = pages(race("digits"))["index.html"]
    assert "profile" not in lone.ids


def test_many_tasks_get_a_short_headline():
    index = pages(race(*"abcde"))["index.html"].prose
    assert "Lowest loss on 5 tasks: AdamW on 5." in index


def test_deviations_where_a_task_measures_them():
    curve = ((1, 2.0), (100, 0.6))
    measured = [
        replace(
            r,
            metrics={**r.metrics, "deviation": 10.0 ** -(r.seed + (r.optimizer == "ANDI"))},
            twin_curve=curve,
        )
        for r in race("invariance")
    ]
    page = pages(measured)["index.html"].prose
    assert "Deviation between two coordinate systems" in page
    assert "Training loss in the given coordinates" in page
    assert page.index("ANDI") < page.index("SGD")
    index = pages([*measured, *race("digits")])["index.html"]
    assert "invariance" in index.ids
    plain = pages(race("digits"))["index.html"].prose
    assert "coordinate systems" not in plain


@pytest.mark.parametrize("value", [0.0, 1e-300, 1e300, math.inf])
def test_deviations_without_a_place_on_a_log_scale_can_be_drawn(value):
    measured = [replace(r, metrics={**r.metrics, "deviation": value}) for r in race("invariance")]
    assert "Deviation between two coordinate systems" in prose(measured)


def test_peak_memory_where_it_was_measured():
    assert "Peak memory" not in prose(race("digits"))
    assert "3.00 MiB" in prose([replace(r, peak_memory_bytes=3 * 2**20) for r in race("digits")])


def test_everything_needed_to_repeat_a_run_is_told():
    engine = {"device": "cuda", "compile": True, "autocast": "bfloat16", "clip": 1.0}
    records = claiming(race("digits"), engine=engine, preset="full", protocol="paper")
    page = prose(records, "steepest race digits@full --protocol paper")
    for fact in (
        "digits (full, paper protocol)",
        "autocast = bfloat16, clip = 1.0, compile = true, device = cuda",
        "steepest race digits@full --protocol paper",
        "batch size",
        "some processor",
        "1, 2, 3",
        "words",
    ):
        assert fact in page, fact
    assert "'relation'" not in page


def test_the_headline_metric_is_the_first_column():
    records = [replace(r, metrics={"val_zeal": 1.0, **r.metrics}) for r in claiming(race("digits"))]
    page = prose(records)
    assert page.index(" accuracy ") < page.index(" zeal ")


def test_files_of_a_report(tmp_path: Path):
    records = both_protocols()
    summary = summarize(records)
    assert write_report(summary, tmp_path, records=records).name == "index.html"
    stems = ("digits-fair-protocol", "digits-paper-protocol", "text")
    expected = {"index.html", "runs.csv", "summary.csv", "claims.csv"}
    assert {p.name for p in tmp_path.iterdir()} == expected | {
        f"{s}{e}" for s in stems for e in (".html", ".png")
    }
    for path in tmp_path.glob("*.html"):
        for link in Document(path.read_text(encoding="utf-8")).links:
            assert not link.partition("#")[0] or (tmp_path / link.partition("#")[0]).exists()
    runs = rows((tmp_path / "runs.csv").read_text())
    assert [r["key"] for r in runs] == [r.key for r in records]
    by_key = {r.key: r for r in records}
    for row in runs:
        record = by_key[row["key"]]
        assert float(row["final_loss"]) == record.final_loss
        assert (row["protocol"], row["status"], float(row["lr"])) == (
            record.protocol,
            record.status,
            record.lr,
        )
        assert row["metric.val_accuracy"] == str(record.metrics.get("val_accuracy", ""))
    found = rows((tmp_path / "summary.csv").read_text())
    assert len(found) == 9
    first = next(row for row in found if (row["task"], row["protocol"]) == ("digits", "paper"))
    assert (first["optimizer"], first["rank"]) == ("AdamW", "1")
    assert float(first["val_loss"]) == pytest.approx(0.504)
    claims = rows((tmp_path / "claims.csv").read_text())
    assert [row["verdict"] for row in claims] == ["holds", "does not hold", "undecided"] * 3
    assert float(claims[0]["better_by"]) == pytest.approx(0.104)


def test_pages_have_names_of_their_own():
    summary = summarize(race("a b", "a-b", "Ä", "ö", "index"))
    names = page_names(summary)
    assert list(names.values()) == ["a-b.html", "a-b-2.html", "task.html", "task-2.html", "index-2.html"]
    assert picture_name(summary, summary.tasks[1]) == "a-b-2.png"


def test_nothing_is_lost_in_cleaning():
    assert "\N{REPLACEMENT CHARACTER}" not in prose([*both_protocols(), *race("invariance")])
