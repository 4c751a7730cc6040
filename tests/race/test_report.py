import itertools
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from race_pages import Document, pages, prose, race, record

from steepest.race.report import Origin, write_curves_png, write_report
from steepest.race.report.charts import final_axis, smooth
from steepest.race.report.markup import Markup, tag, text
from steepest.race.report.page import render_pages
from steepest.race.report.palette import DASHES, LIGHT, MARKERS, assign
from steepest.race.report.settings import aux_policy, duration
from steepest.race.report.svg import Axis, short, spanning, spread
from steepest.race.report.words import headline, power_text, task_text
from steepest.race.statistics import Curve, summarize

HOSTILE = "evil:<script>alert('x')</script>\"&\x07$a_b$"
SECTIONS = (
    "Ranking",
    "Loss curves",
    "Loss against learning rate",
    "Cost of a step",
    "final loss",
    "Who is better than whom",
    "Runs without a result",
    "Settings",
    "Environment",
    "How to read this",
)


def test_complete_report():
    found = pages(race("digits", "text"), "steepest race digits text --steps 100")
    assert list(found) == ["index.html", "digits.html", "text.html"]
    for section in (
        "Tasks",
        "Across tasks",
        "Performance profile",
        "Equivalent AdamW budget",
        *SECTIONS[-4:],
    ):
        assert section in found["index.html"].prose, section
    for section in SECTIONS[:-1]:
        assert section in found["text.html"].prose, section
    page = found["digits.html"]
    assert {"svg", "table", "title", "nav", "details"} <= page.names
    for fact in (
        "--steps 100",
        "2.13.0",
        "some processor",
        "fixed at 0.003",
        "betas = [0.9, 0.99]",
        "batch size",
    ):
        assert fact in page.prose, fact
    assert "phase seed" not in page.prose
    assert "loss is not finite at step 7" in page.prose
    assert "On digits, AdamW had the lowest loss" in page.prose or "On digits, AdamW was" in page.prose
    assert "2026-01-02" in page.prose


def test_one_task_is_one_page():
    found = pages(race("digits"))
    assert list(found) == ["index.html"]
    for section in SECTIONS:
        assert section in found["index.html"].prose, section


def test_ids_are_unique_and_links_lead_somewhere():
    for found in (pages(race("a", "b", "a b", "Index")), pages(race("a"))):
        for name, page in found.items():
            assert len(page.ids) == len(set(page.ids))
            assert page.links
            for link in page.links:
                file, _, anchor = link.partition("#")
                assert file in ("", *found)
                assert not anchor or anchor in found[file or name].ids


def test_nothing_is_loaded_from_elsewhere():
    records = race("digits", "text")
    for source in render_pages(summarize(records), records=records).values():
        assert not re.search(r"(?i)https?:|//[a-z]|url\((?!#)|@import|<script|<link|<img|<iframe", source)
        assert len(source.encode()) < 1_500_000


def test_hostile_names_are_text():
    records = race("<b>task</b>", optimizers=("AdamW", HOSTILE))
    records.append(
        replace(records[-1], key="f", seed=9, status="failed", error="<img src=x onerror=alert(1)>\x00\ud800")
    )
    origins = [Origin("race '<i>' \"&", frozenset(r.key for r in records))]
    (source,) = render_pages(summarize(records), records=records, origins=origins).values()
    page = Document(source)
    assert "<script" not in source
    assert "<img" not in source
    assert "\x00" not in source
    assert "\x07" not in source
    source.encode()
    assert page.names.isdisjoint({"script", "img", "b", "i"})
    assert "<script>alert('x')</script>" in page.prose
    assert "<img src=x onerror=alert(1)>" in page.prose


def test_nothing_recorded():
    words = prose([])
    for section in ("No runs recorded yet", "Runs without a result", "Settings", "How to read this"):
        assert section in words


def test_race_cut_short_after_any_run():
    records = race("digits", "text")
    for count in range(1, len(records), 3):
        assert "Ranking" in prose(records[:count])


def test_only_failures():
    records = [
        replace(
            r, status="failed", error="boom", final_loss=math.inf, train_curve=(), val_curve=(), metrics={}
        )
        for r in race("digits")
    ]
    words = prose(records)
    assert "no lr gave a result" in words or "no result" in words
    assert "boom" in words


def test_one_optimizer_one_seed():
    records = [record("digits", "Solo", "final", 0.1, 1, 0.5)]
    words = prose(records)
    assert "Solo ran alone" in words
    assert "No learning rate was swept" in words
    assert "nothing to compare" in words


@pytest.mark.parametrize("loss", [0.0, -3.0, 1e-30, 1e30])
def test_extreme_losses(loss: float):
    records = [record("t", name, "final", 0.1, s, loss) for name in ("AdamW", "ANDI") for s in (1, 2)]
    records += [record("t", name, "sweep", lr, 0, loss) for name in ("AdamW", "ANDI") for lr in (0.1, 1.0)]
    assert "Ranking" in prose(records)


def test_many_optimizers_all_look_different():
    names = [f"O{i}" for i in range(16)]
    styles = assign(names)
    assert (
        len({(s.dash, s.marker) for s in styles.values()})
        == len({(s.colour, s.dash) for s in styles.values()})
        == 16
    )
    assert assign(["ANDI", "AdamW"])["ANDI"] == assign(["SGD", "ANDI", "Zed"])["ANDI"]
    assert len(LIGHT) == len(DASHES) == len(MARKERS)
    pages(race("digits", optimizers=("AdamW", *names)))


def test_written_in_one_move(tmp_path: Path):
    folder = tmp_path / "deep" / "report"
    records = race("digits")
    summary = summarize(records)
    target = write_report(summary, folder, records=records, pictures=False)
    assert target == folder / "index.html"
    first = target.read_text(encoding="utf-8")
    write_report(summary, folder, origins=[Origin("again", frozenset())], pictures=False)
    assert target.read_text(encoding="utf-8") != first
    assert sorted(p.name for p in folder.iterdir()) == ["index.html", "runs.csv", "summary.csv"]


def test_failed_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = write_report(summarize(race("digits")), tmp_path, pictures=False)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_report(summarize([]), target.parent, pictures=False)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_same_records_same_report():
    records = race("digits")
    assert render_pages(summarize(records), records=records) == render_pages(
        summarize(records), records=records
    )


def test_picture(tmp_path: Path):
    records = race("digits", "text", optimizers=("AdamW", "$broken_{math", HOSTILE))
    target = write_curves_png(summarize(records), tmp_path / "race.png", dpi=40)
    assert target.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="no validation curve"):
        write_curves_png(summarize([]), tmp_path / "none.png")


def test_sentences_say_what_was_tested():
    summary = summarize(
        [record("t", n, "final", 0.1, s, v) for n, v in (("AdamW", 1.0), ("ANDI", 0.5)) for s in (1,)]
    )
    (task,) = summary.tasks
    assert headline(summary) == "On t, ANDI had the lowest loss, not detectably better than any other."
    assert "nothing to test it on against AdamW" in " ".join(task_text(task, "AdamW"))
    assert "lower" not in " ".join(task_text(task, "AdamW"))
    assert "no test was possible" in power_text(task, 0.05)
    clear = [("AdamW", 1.0), ("ANDI", 0.5)]
    sure = summarize([record("t", n, "final", 0.1, s, v + s / 10) for n, v in clear for s in (1, 2, 3)])
    assert "so ANDI is 42 % lower. It is detectably better than AdamW." in " ".join(
        task_text(sure.tasks[0], "AdamW")
    )
    full = summarize(race("t"))
    words = " ".join(task_text(full.tasks[0], "AdamW"))
    assert "over 3 seeds" in words
    assert "3 pairs tested on 3 paired seeds" in power_text(full.tasks[0], 0.05)


def test_markup_escapes_once():
    assert text('<&">') == "&lt;&amp;&quot;&gt;"
    assert text(Markup("<b>")) == "<b>"
    assert tag("a", "x<y", tag("b", "z"), href='"', class_="k", data_x=1.50, title=None) == (
        '<a href="&quot;" class="k" data-x="1.5">x&lt;y<b>z</b></a>'
    )


def test_axes_and_labels():
    axis = Axis(0.0, 10.0, 0.0, 100.0)
    assert axis.at(5) == 50
    assert axis.ticks() == [0, 2, 4, 6, 8, 10]
    assert Axis(2.02, 2.98, 0.0, 1.0).ticks(4) == pytest.approx([2.2, 2.4, 2.6, 2.8])
    log = Axis(0.01, 1.0, 0.0, 100.0, True)
    assert log.at(0.1) == pytest.approx(50)
    assert log.at(0.0) == -100
    assert log.ticks() == pytest.approx([0.01, 0.1, 1.0])
    assert len(spanning([0.11, 0.13], 0, 1, log=True).ticks()) >= 2
    assert spanning([], 0, 1).high > spanning([], 0, 1).low
    placed = spread([5.0, 5.0, 6.0, 40.0], 10.0, 0.0, 100.0)
    ordered = sorted(placed)
    assert all(b - a >= 10 - 1e-9 for a, b in itertools.pairwise(ordered))
    assert placed[3] == 40.0
    assert spread([], 10.0, 0.0, 1.0) == []
    assert short("abcdefghij", 7) == "ab…ghij"


def test_far_off_results_do_not_set_the_scale():
    losses = {"A": 1.0, "B": 1.1, "C": 1.2, "D": 50.0}
    records = [record("t", n, "final", 0.1, s, v + 0.01 * s) for n, v in losses.items() for s in (1, 2, 3)]
    axis = final_axis(summarize(records).tasks[0], 0.0, 1.0)
    assert axis is not None
    assert axis.high < 3


def test_smoothing_keeps_ends_and_straight_lines():
    values = tuple(float(v) for v in range(9))
    curve = smooth(Curve(values, values, values, values, 1), 5)
    assert curve.mean == pytest.approx(values)
    bumpy = smooth(Curve((0, 1, 2), (0.0, 3.0, 0.0), (0.0,) * 3, (3.0,) * 3, 1), 3)
    assert bumpy.mean == pytest.approx((0.0, 1.0, 0.0))


def test_policy_and_duration():
    base = record("t", "X", "sweep", 0.1, 0, 1.0)
    assert aux_policy([replace(base, aux_lr=None)]) == "no auxiliary rule"
    assert aux_policy([base, replace(base, lr=0.2)]) == "fixed at 0.003"
    assert aux_policy([base], 0.003, "AdamW") == "fixed at 0.003, the best lr of AdamW"
    assert aux_policy([replace(base, aux_lr=0.01), replace(base, lr=0.2, aux_lr=0.02)]) == "0.1 × lr"
    assert aux_policy([base, replace(base, lr=0.2, aux_lr=0.1)]).startswith("tuned with lr")
    assert [duration(s) for s in (0.24, 42, 125, 12_000)] == ["0.2 s", "42 s", "2 min 5 s", "3 h 20 min"]
