"""`steepest report` and `steepest compare` from the command line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from race_records import finals, sweep

from steepest.cli import main
from steepest.race.records import RecordStore, RunRecord, read_records


def folder(path: Path, records: list[RunRecord]) -> str:
    with RecordStore(path) as store:
        for record in records:
            store.append(record)
    return str(path)


@pytest.fixture
def fair(tmp_path: Path) -> str:
    records = [
        *sweep("AdamW", {0.1: 1.0}),
        *finals("AdamW", [1.0, 1.1, 1.2]),
        *finals("ANDI", [0.5, 0.6, 0.7]),
    ]
    return folder(tmp_path / "fair", records)


@pytest.fixture
def paper(tmp_path: Path) -> str:
    records = [replace(r, protocol="paper") for r in finals("AdamW", [2.0, 2.1, 2.3])]
    return folder(tmp_path / "paper", records)


def test_report_of_one_folder_goes_into_it(fair: str, capsys):
    assert main(["report", fair, "--no-pictures"]) == 0
    assert f"Report: {Path(fair) / 'report' / 'index.html'}" in capsys.readouterr().out.replace("\n", "")
    assert {p.name for p in (Path(fair) / "report").iterdir()} == {"index.html", "runs.csv", "summary.csv"}


def test_report_of_several_folders_tells_them_apart(
    fair: str, paper: str, tmp_path: Path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["report", fair, paper]) == 0
    out = capsys.readouterr().out
    assert "toy (fair protocol): 100 steps" in out
    assert "toy (paper protocol): 100 steps" in out
    written = {p.name for p in Path("race-report").iterdir()}
    assert {"index.html", "toy-fair-protocol.html", "toy-paper-protocol.png"} <= written
    assert "Protocols side by side" in Path("race-report/index.html").read_text()
    assert main(["report", fair, paper, "--out", "elsewhere", "--no-pictures"]) == 0
    assert Path("elsewhere/toy-paper-protocol.html").exists()


def test_report_of_all_records_or_of_the_latest_race(fair: str, capsys):
    records = [r for r in read_records(fair) if r.optimizer == "AdamW"]
    manifest = {"command": "steepest race toy", "keys": [r.key for r in records]}
    (Path(fair) / "race.json").write_text(json.dumps(manifest))
    assert main(["report", fair, "--no-pictures"]) == 0
    latest = capsys.readouterr().out
    assert "ANDI" not in latest
    assert "steepest race toy" in (Path(fair) / "report" / "index.html").read_text()
    assert main(["report", fair, "--no-pictures", "--all"]) == 0
    assert "ANDI" in capsys.readouterr().out


def test_compare_two_optimizers(fair: str, capsys):
    assert main(["compare", "ANDI", "AdamW", "--in", fair]) == 0
    out = capsys.readouterr().out
    assert "ANDI - AdamW" in out
    assert "−0.5" in out
    assert "ANDI better" in out
    assert "A:" not in out


def test_compare_two_folders(fair: str, tmp_path: Path, capsys):
    other = folder(tmp_path / "other", finals("AdamW", [1.4, 1.52, 1.61], step_ms=4.0))
    assert main(["compare", fair, other]) == 0
    out = capsys.readouterr().out
    assert f"A: {fair}" in out.replace("\n", "")
    assert "A better" in out
    assert "0.50x" in out
    assert "Only A: ANDI on toy" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["compare", "ANDY", "AdamW", "--in", "{fair}"],
            1,
            "no runs of 'ANDY' in the folder; did you mean 'ANDI'?",
        ),
        (["compare", "{fair}", "{fair}.missing"], 1, "no records in"),
        (["compare", "{fair}", "{paper}"], 1, "A has ANDI on toy, AdamW on toy; B has AdamW on toy (paper"),
        (["compare", "{fair}"], 2, "B"),
        (["report", "{fair}", "{fair}.missing"], 1, "no records in"),
        (["report", "{fair}", "--out", "{fair}/records.jsonl"], 1, "cannot write to"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], code: int, message: str, fair: str, paper: str, capsys
):
    assert main([a.format(fair=fair, paper=paper) for a in arguments]) == code
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
